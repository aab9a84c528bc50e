// The web entry as a page uses it: bundled with Vite, served from localhost, run in headless Chromium.

import { existsSync } from "node:fs";
import { cp } from "node:fs/promises";
import { type Browser, chromium, type Page } from "playwright-core";
import { build, type PreviewServer, preview } from "vite";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { CaseName, CaseResult } from "./cases.js";

const CONFIG = "test/browser/vite.config.ts";
/** FERA_CHROMIUM names another browser. */
const CHROMIUM = [process.env.FERA_CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser"].find(
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

const CASES: readonly CaseName[] = [
  "indicator",
  "router",
  "consistencyLoss",
  "unetSd15",
  "unetSd15Training",
  "torchFile",
];

describe.skipIf(!CHROMIUM)("in Chromium the web entry agrees with the reference", () => {
  let server: PreviewServer;
  let browser: Browser;
  let page: Page;

  beforeAll(async () => {
    await build({ configFile: CONFIG, logLevel: "warn" });
    await cp("test/reference", "runs/browser/reference", { recursive: true });
    server = await preview({ configFile: CONFIG, logLevel: "warn" });
    const icd = existsSync(SWIFTSHADER) ? { VK_ICD_FILENAMES: SWIFTSHADER, VK_DRIVER_FILES: SWIFTSHADER } : {};
    browser = await chromium.launch({
      executablePath: CHROMIUM!,
      headless: true,
      args: ARGUMENTS,
      env: { ...(process.env as Record<string, string>), ...icd },
    });
    page = await browser.newPage();
    page.on("pageerror", (error) => console.error(error));
    page.on("console", (message) => {
      if (message.type() === "error") console.error(message.text());
    });
    await page.goto(server.resolvedUrls!.local[0]!);
    await page.waitForFunction("globalThis.runCase !== undefined");
  }, 300_000);

  afterAll(async () => {
    await browser?.close();
    await server?.close();
  });

  for (const device of ["wasm", "webgpu"] as const) {
    for (const name of CASES) {
      it(`${name} on ${device}`, { timeout: 900_000 }, async () => {
        const result = (await page.evaluate(
          ([chosen, where]) =>
            (globalThis as unknown as { runCase(name: string, device: string): unknown }).runCase(chosen!, where!),
          [name, device],
        )) as CaseResult;
        if (process.env.FERA_PARITY) console.table([...result.checks, { what: "seconds", error: result.seconds }]);
        expect(result.error).toBeUndefined();
        expect(result.isolated).toBe(true);
        expect(result.checks.length).toBeGreaterThan(0);
        for (const { what, error, limit } of result.checks) expect(error, what).toBeLessThan(limit);
      });
    }
  }
});
