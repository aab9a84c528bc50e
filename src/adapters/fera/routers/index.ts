export { blockOf, layerGates } from "./block-router.js";
export { createRouter } from "./create-router.js";
export type { Router, RouterInputs } from "./router.js";
export { initialNetwork, networkShapes, softmaxNetwork } from "./router-network.js";
