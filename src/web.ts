// The package in the browser. Models are read from a URL (`fromPretrained`), adapters from bytes or a URL.

import "./storage/web.js";

export * from "./library.js";
export { configureWebRuntime, type WebRuntimeOptions } from "./runtime/web.js";
