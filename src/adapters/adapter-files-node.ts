// Reads and writes adapter files on disk.

import { dirname } from "node:path";
import { FormatError } from "../errors.js";
import { makeFolder, readWholeFile, writeFileAtomically } from "../storage/file-access.js";
import { registerAdapterFileAccess } from "./adapter-files.js";

registerAdapterFileAccess({
  read: readWholeFile,
  async write(path, bytes, options) {
    if (options.makeFolder) {
      const folder = dirname(path);
      await makeFolder(folder).catch((cause: Error) => {
        throw new FormatError(folder, `the folder cannot be made: ${cause.message}.`, { cause });
      });
    }
    await writeFileAtomically(path, [bytes]);
  },
});
