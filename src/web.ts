// The package in the browser. Models are read from an address or the hub (`fromPretrained`), adapters from bytes or an
// address.

import "./storage/web.js";

export * from "./library.js";
export { configureWebRuntime, type WebRuntimeOptions } from "./runtime/web.js";
