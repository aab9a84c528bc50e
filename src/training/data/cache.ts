// The folder for files that can be made again. Node only.

export { cacheFolder } from "../../formats/cache-folder.js";
