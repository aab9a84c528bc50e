export { type Backend, type BackendSession, type KeptValues, registerBackend } from "./backend.js";
export {
  CompiledGraph,
  type CompileOptions,
  canKeepValues,
  compile,
  deviceOf,
  type RuntimeOptions,
} from "./compile.js";
export { CompiledGraphs } from "./compiled-graphs.js";
export { compileDataParallel, DataParallelGraph } from "./data-parallel.js";
export { DEVICES, type Device, type DeviceOption, isGpu } from "./device.js";
export { DeviceResident } from "./device-resident.js";
