// Headless Chromium for tests in a browser, which are skipped where there is none.

import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

/** FERA_CHROMIUM names another browser. */
export const CHROMIUM = [process.env.FERA_CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser"].find(
  (path) => path && existsSync(path),
);
/** Chromium's software implementation of Vulkan, so that WebGPU runs without a GPU. */
const SWIFTSHADER = "/usr/lib/chromium/vk_swiftshader_icd.json";

const ARGUMENTS = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--enable-unsafe-webgpu",
  "--enable-features=Vulkan",
  "--use-webgpu-adapter=swiftshader",
  // Clearing workgroup memory and clamping indices are a third of SwiftShader's work and most of its compilation. Kernels
  // that relied on either would give wrong numbers here, not pass.
  "--enable-dawn-features=disable_workgroup_init,disable_robustness",
];

/** Starts the browser with WebGPU on a software adapter. */
export async function launchChromium(): Promise<Browser> {
  const icd = existsSync(SWIFTSHADER) ? { VK_ICD_FILENAMES: SWIFTSHADER, VK_DRIVER_FILES: SWIFTSHADER } : {};
  return chromium.launch({
    executablePath: CHROMIUM!,
    headless: true,
    args: ARGUMENTS,
    env: { ...(process.env as Record<string, string>), ...icd },
  });
}
