export { HubError } from "./hub-error.js";
export type { DownloadProgress, HubOptions } from "./hub-options.js";
export { isHubId } from "./hub-settings.js";
export { fetchDataset, fetchModel, locateModel, type ModelPlace } from "./locate.js";
export type { Wanted } from "./needed-files.js";
