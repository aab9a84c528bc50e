// The devices a graph can run on, and the kernels each is lowered for.

import { ConfigError } from "../errors.js";
import type { Target } from "../onnx/index.js";

/** ONNX Runtime execution providers under the names users type; `wasm` is the browser's CPU. */
export const DEVICES = ["cpu", "webgpu", "cuda", "coreml", "dml", "wasm"] as const;

export type Device = (typeof DEVICES)[number];

/** A device, or `auto` for the fastest that this machine's ONNX Runtime offers. */
export type DeviceOption = Device | "auto";

/** Which kernels to write for: fused CPU operators where the CPU runs them, standard operators on GPUs. */
export const targetOf = (device: Device): Target => (isGpu(device) ? "portable" : "cpu");

/** Whether the device computes in a memory of its own. */
export const isGpu = (device: Device): boolean => device !== "cpu" && device !== "wasm";

/**
 * Chooses a device.
 *
 * @param option - What the user asked for.
 * @param available - What the backend offers, the fastest first.
 * @throws {ConfigError} If the device is unknown or not offered; the message lists what is.
 */
export function resolveDevice(option: DeviceOption, available: readonly Device[]): Device {
  if (option === "auto") return available[0]!;
  if (!DEVICES.includes(option)) {
    throw new ConfigError(`device: must be one of auto, ${DEVICES.join(", ")}; got "${String(option)}".`);
  }
  if (!available.includes(option)) {
    throw new ConfigError(
      `device: "${option}" is not offered by the ONNX Runtime on this machine; available: ${available.join(", ")}. ` +
        "Choose one of these, or install ONNX Runtime's files for that device (README, “What runs where”).",
    );
  }
  return option;
}
