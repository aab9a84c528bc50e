// The web entry as a page uses it: bundled with Vite, served from localhost, run in headless Chromium.

import { cp, readFile } from "node:fs/promises";
import type { Browser, Page } from "playwright-core";
import { build, type PreviewServer, preview } from "vite";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CHROMIUM, launchChromium } from "../support/chromium.js";
import type { CaseName, CaseResult } from "./cases.js";

const CONFIG = "test/browser/vite.config.ts";

/**
 * Of the training on the software GPU, where a step takes half a minute: the first ones. FERA_FULL=1 does all that the reference
 * did. The third loss is that of adapters that two steps have changed.
 */
const STEPS = { wasm: 8, webgpu: process.env.FERA_FULL ? 8 : 2 };

const CASES: readonly CaseName[] = [
  "loading",
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
    browser = await launchChromium();
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

  it("images are shown in a canvas, and saved as downloads of their name", async () => {
    const downloading = page.waitForEvent("download");
    const shown = await page.evaluate(() =>
      (globalThis as unknown as { saveImage(name: string): Promise<string> }).saveImage("some folder/grey.jpg"),
    );
    expect(shown).toBe("HTMLCanvasElement 3×2");
    const download = await downloading;
    expect(download.suggestedFilename()).toBe("grey.jpg");
    // The first bytes of a JPEG file.
    expect((await readFile(await download.path())).subarray(0, 3)).toEqual(Buffer.of(0xff, 0xd8, 0xff));
  });

  for (const device of ["wasm", "webgpu"] as const) {
    for (const name of device === "wasm" ? [...CASES, "images" as const] : CASES) {
      it(`${name} on ${device}`, { timeout: 900_000 }, async () => {
        const result = (await page.evaluate(
          ([chosen, where, steps]) =>
            (globalThis as unknown as { runCase(...given: unknown[]): unknown }).runCase(chosen, where, steps),
          [name, device, STEPS[device]],
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
