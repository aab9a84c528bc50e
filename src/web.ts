// The package in the browser. Files are the page's business: tensors and adapters come in as bytes.

import "./runtime/web.js";

export * from "./library.js";
