// How far the integers of a weight may reach on this machine's processor. Node only.

import { readFileSync } from "node:fs";
import { arch } from "node:process";

/** Of 8 bits; −128 is left out, so that both signs reach equally far. */
const WHOLE = 127;
/**
 * Where products of 8-bit integers are added in 16 bits, two at a time, as x86 does without VNNI: 2 · 255 · 64 would overflow,
 * and what overflows is cut off.
 */
const HALF = 63;

let known: number | undefined;

/**
 * The largest magnitude of an integer.
 *
 * @param cpuInfo - Text that names the processor's instruction sets, of x86.
 */
export function int8Range(cpuInfo = readCpuInfo(), architecture: string = arch): number {
  if (architecture !== "x64" && architecture !== "ia32") return WHOLE;
  return /\bavx(512)?_vnni\b/.test(cpuInfo) ? WHOLE : HALF;
}

/** {@link int8Range} of this machine. */
export function ownInt8Range(): number {
  known ??= int8Range();
  return known;
}

/** Only Linux tells; elsewhere the processor may be any. */
function readCpuInfo(): string {
  try {
    return readFileSync("/proc/cpuinfo", "utf8");
  } catch {
    return "";
  }
}
