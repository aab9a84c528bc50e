// Reads and writes adapter files on disk.

import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { FormatError } from "../errors.js";
import { readWholeFile, writeFileAtomically } from "../formats/file-access.js";
import { registerAdapterFileAccess } from "./adapter-files.js";

registerAdapterFileAccess({
  read: readWholeFile,
  async write(path, bytes, { makeFolder }) {
    if (makeFolder) {
      const folder = dirname(path);
      await mkdir(folder, { recursive: true }).catch((cause: Error) => {
        throw new FormatError(folder, `the folder cannot be made: ${cause.message}.`, { cause });
      });
    }
    await writeFileAtomically(path, [bytes]);
  },
});
