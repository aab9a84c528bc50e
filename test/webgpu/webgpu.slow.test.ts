// The graphs on WebGPU in Node, on a software driver, against the CPU. FERA_PARITY=1 prints the errors;
// FERA_WEBGPU_GOLDEN=1 adds the golden inputs, which take minutes.

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import type { Check } from "./cases.js";

/** Debian's chromium brings a Vulkan loader and SwiftShader, Vulkan in software. FERA_VULKAN names another such folder. */
const FOLDER = process.env.FERA_VULKAN ?? "/usr/lib/chromium";
const DRIVER = join(FOLDER, "vk_swiftshader_icd.json");
const missing = [DRIVER, join(FOLDER, "libvulkan.so.1")].filter((path) => !existsSync(path));
/** Two kinds of attention heads and of prediction; FERA_FULL=1 adds the one between them. */
const MODELS = process.env.FERA_FULL ? ["unet-sd15", "unet-sd21", "unet-sdxl"] : ["unet-sd15", "unet-sdxl"];
const TIME_LIMIT_MS = 600_000;
const GOLDEN_TIME_LIMIT_MS = 3_600_000;

async function run(timeout: number, ...args: string[]): Promise<Check[]> {
  const libraries = [FOLDER, process.env.LD_LIBRARY_PATH].filter(Boolean).join(":");
  const env = { ...process.env, VK_ICD_FILENAMES: DRIVER, VK_DRIVER_FILES: DRIVER, LD_LIBRARY_PATH: libraries };
  const command = ["--import", "tsx", "test/webgpu/cases.ts", ...args];
  const { stdout } = await promisify(execFile)(process.execPath, command, { env, timeout });
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Check);
}

function expectWithin(checks: Check[]): void {
  if (process.env.FERA_PARITY) console.table(checks);
  for (const { what, error, limit } of checks) expect(error, what).toBeLessThan(limit);
}

// A reason in the title, so that a skipped run says it.
const suite = missing.length === 0 ? "WebGPU in Node" : `WebGPU in Node (skipped: there is no ${missing.join(", ")})`;

describe.skipIf(missing.length > 0)(suite, () => {
  it("predicts, differentiates and trains as the CPU does, the state on the device", {
    timeout: TIME_LIMIT_MS,
  }, async () => {
    const checks = await run(TIME_LIMIT_MS, "small", ...MODELS);
    expect(checks).toHaveLength(8 * MODELS.length + 13);
    expectWithin(checks);
  });

  it.runIf(process.env.FERA_WEBGPU_GOLDEN)(
    "gives the golden outputs and gradients",
    { timeout: GOLDEN_TIME_LIMIT_MS },
    async () => expectWithin(await run(GOLDEN_TIME_LIMIT_MS, "golden", ...MODELS)),
  );
});
