// The package in the browser: making images and training. Models are read from an address or the hub
// (`fromPretrained`), adapters from bytes or an address.

export * from "./library.js";
export * from "./web-inference.js";
