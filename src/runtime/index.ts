export { type Backend, type BackendSession, registerBackend } from "./backend.js";
export { CompiledGraph, type CompileOptions, compile, type RuntimeOptions } from "./compile.js";
export { CompiledGraphs } from "./compiled-graphs.js";
export { DEVICES, type Device, type DeviceOption } from "./device.js";
