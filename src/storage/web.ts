// Storage in the browser: addresses, and ids of the hub. Imported for its effect.

import { FormatError } from "../errors.js";
import type { HubOptions } from "./hub/hub-options.js";
import { installStorage } from "./storage.js";
import { addressStorage, hubIdIn } from "./url-storage.js";

const HUB_ENDPOINT = "https://huggingface.co";

installStorage({
  async open(location, options) {
    // Other locations are addresses, relative to the page where they are not whole.
    const id = hubIdIn(location);
    if (id === undefined) return addressStorage(location, options);
    const { revision = "main", token }: HubOptions = options;
    const headers: Record<string, string> = token ? { authorization: `Bearer ${token}` } : {};
    return addressStorage(`${HUB_ENDPOINT}/${id}/resolve/${encodeURIComponent(revision)}`, { ...options, headers });
  },
  fileAt(path) {
    const storage = addressStorage(path, {}, { isFile: true });
    return { storage, name: storage.file! };
  },
  async write(path) {
    throw new FormatError(path, "a page cannot write files; offer the bytes of fera.toSafetensors() as a download.");
  },
});
