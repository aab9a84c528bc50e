export { DEMO_STYLES, type DemoOptions, type DemoReport, EMBEDDED_MODEL, runDemo } from "./run-demo.js";
