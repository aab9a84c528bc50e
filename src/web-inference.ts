// Making images in the browser, without training: the package's entry `fera/inference` there. Models are read from an
// address or the hub (`fromPretrained`), adapters from bytes or an address.

import "./storage/web.js";

export * from "./inference.js";
export { configureWebRuntime, type WebRuntimeOptions } from "./runtime/web.js";
