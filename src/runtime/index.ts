export {
  type Backend,
  type BackendSession,
  backend,
  type IoBinding,
  registerBackend,
  type TensorType,
} from "./backend.js";
export {
  CompiledGraph,
  type CompileOptions,
  compile,
  deviceOf,
  type Precision,
  type RuntimeOptions,
  supportsIoBinding,
} from "./compile.js";
export { CompiledGraphs } from "./compiled-graphs.js";
export { compileDataParallel, DataParallelGraph } from "./data-parallel.js";
export { DEVICES, type Device, type DeviceOption, isGpu } from "./device.js";
export { DeviceResident } from "./device-resident.js";
export { type Fallbacks, type ListedProvider, operatorFallbacks } from "./fallbacks.js";
export { compileProbe } from "./probe.js";
