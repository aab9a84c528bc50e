export { DEMO_STYLES, type DemoOptions, type DemoReport, EMBEDDED_MODEL, knownNames, runDemo } from "./run-demo.js";
