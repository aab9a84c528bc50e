export { drawPrompts, trueFeatures } from "./drawings.js";
export {
  ADAPTED_LAYERS,
  BASE_STYLE,
  DEMO_STYLES,
  EMBEDDED_MODEL,
  GUIDANCE_SCALE,
  HELD_OUT_SHARE,
  knownNames,
} from "./embedded-model.js";
export { DEMO_LAYERS, type DemoOptions, type DemoReport, demoConfig, runDemo } from "./run-demo.js";
