// Storage in Node: folders, files and addresses by their name, ids of the hub through its cache. Imported for its effect.

import { basename, dirname } from "node:path";
import { FormatError } from "../errors.js";
import { makeFolder, writeFileAtomically } from "./file-access.js";
import { FileStorage } from "./file-storage.js";
import { fetchModel, locateModel } from "./hub/locate.js";
import { installStorage, type Storage } from "./storage.js";
import { addressStorage, hubIdIn, isAddress } from "./url-storage.js";

installStorage({
  async open(location, options): Promise<Storage> {
    if (isAddress(location)) return addressStorage(location, options);
    const id = hubIdIn(location);
    if (id !== undefined)
      return new FileStorage(await fetchModel(id, { ...options, parts: options.parts ?? "all" }), options);
    const { parts = "all", weights = true } = options;
    const { kind, path } = await locateModel(location, { ...options, parts, weights });
    if (kind === "folder") return new FileStorage(path, options);
    return new FileStorage(dirname(path), options, basename(path));
  },
  fileAt(path) {
    if (isAddress(path)) {
      const storage = addressStorage(path, {}, { isFile: true });
      return { storage, name: storage.file! };
    }
    return { storage: new FileStorage(dirname(path)), name: basename(path) };
  },
  async write(path, bytes, { makeFolder: make = false }) {
    if (isAddress(path)) throw new FormatError(path, "is an address; name a file to write to.");
    if (make) {
      const folder = dirname(path);
      await makeFolder(folder).catch((cause: Error) => {
        throw new FormatError(folder, `the folder cannot be made: ${cause.message}.`, { cause });
      });
    }
    await writeFileAtomically(path, [bytes]);
  },
});
