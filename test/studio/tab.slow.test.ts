// The studio without a server, as someone uses it on a static host: the site that `fera studio --export` writes, served
// without the headers that threads need, trained on in a tab by clicking.

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, BrowserContext, Page } from "playwright-core";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readGenerationSettings } from "../../src/pipelines/index.js";
import { CHROMIUM, launchChromium } from "../support/chromium.js";
import { runFera } from "../support/fera-program.js";
import { serveFolder } from "../support/static-server.js";

/** FERA_TAB_DEVICE=webgpu trains on the software GPU, which takes minutes. */
const DEVICE = process.env.FERA_TAB_DEVICE ?? "wasm";
const PATIENCE = DEVICE === "webgpu" ? 600_000 : 180_000;

interface Upload {
  name: string;
  mimeType: string;
  buffer: Buffer;
}

/** A dot on white, with its caption. */
async function dot(number: number): Promise<Upload[]> {
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="96" height="96"><rect width="96" height="96" fill="white"/>
    <circle cx="48" cy="48" r="${20 + 5 * number}" fill="hsl(${80 * number},80%,50%)"/></svg>`;
  return [
    { name: `dot ${number}.png`, mimeType: "image/png", buffer: await sharp(Buffer.from(svg)).png().toBuffer() },
    { name: `dot ${number}.txt`, mimeType: "text/plain", buffer: Buffer.from("a <b>coloured</b> dot") },
  ];
}

describe.skipIf(!CHROMIUM)("the studio in a tab", () => {
  let folder: string;
  let site: Awaited<ReturnType<typeof serveFolder>>;
  let browser: Browser;
  let context: BrowserContext;
  let page: Page;
  const errors: string[] = [];

  /** Opens the page, and waits until its worker answers. */
  async function open(): Promise<Page> {
    const opened = await context.newPage();
    opened.on("pageerror", (error) => errors.push(error.stack ?? error.message));
    await opened.goto(site.url);
    await opened.getByText("in this tab").waitFor({ timeout: 60_000 });
    return opened;
  }

  const run = (on: Page, name: string) => on.getByRole("list", { name: "Runs" }).locator("li", { hasText: name });

  /** Sets the form's options, and starts. */
  async function start(on: Page, name: string, settings: Record<string, string>): Promise<void> {
    await on.getByRole("link", { name: "Train", exact: true }).click();
    for (const [option, value] of Object.entries(settings)) {
      const control = on.locator(`#option-${option}`);
      await control.waitFor({ state: "attached" });
      const folded = on.locator("details:not([open])", { has: control });
      if ((await folded.count()) > 0) await folded.locator("summary").click();
      if (option === "device") await control.selectOption(value);
      else await control.fill(value);
    }
    await on.getByLabel("Name of the run").fill(name);
    await on.getByRole("button", { name: /^(Start|Queue) training$/ }).click();
    await run(on, name).first().waitFor();
  }

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "tab-"));
    const exported = await runFera("studio", "--export", join(folder, "site"));
    expect(exported.stderr).toBe("");
    expect(exported.stdout).toMatch(/Cross-Origin-Opener-Policy/);
    site = await serveFolder(join(folder, "site"), "/a/b/");
    browser = await launchChromium();
    context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
    page = await open();
  });

  afterAll(async () => {
    await browser?.close();
    await site?.close();
    await rm(folder, { recursive: true, force: true });
  });

  it("has threads where the host sends no headers", async () => {
    expect(await page.evaluate("crossOriginIsolated")).toBe(true);
    await page.getByText(/in this tab \(WebAssembly, \d+ threads?\)/).waitFor();
  });

  it("takes images and captions, and refuses a broken image in words", async () => {
    const broken = { name: "broken.png", mimeType: "image/png", buffer: Buffer.from("not a picture") };
    const dots = (await Promise.all([1, 2, 3].map(dot))).flat();
    await page.getByRole("link", { name: "Data", exact: true }).click();
    await page.getByLabel("Files to add").setInputFiles([...dots, broken]);
    await page.getByLabel("Its name").fill("dots");
    await page.getByRole("button", { name: "Add", exact: true }).click();
    await page.getByText("6 files added to dots, 1 refused.").waitFor();
    await page.getByText(/broken\.png.*is no image that this browser can read, or is damaged/).waitFor();
    await expect.poll(() => page.getByLabel(/^Caption of dot 1/).inputValue()).toBe("a <b>coloured</b> dot");
  });

  it(
    "trains, shows progress, samples and routing, and gives an adapter that the command line loads",
    async () => {
      const startedAt = performance.now();
      await start(page, "first", { steps: "4", validateEvery: "2", validationSteps: "4", device: DEVICE });
      await run(page, "first")
        // Memory is told while it is at work; a busy page may not show each step.
        .getByText(/[1-4] of 4 steps .*MB/)
        .waitFor({ timeout: PATIENCE });
      await page.getByText("step 2", { exact: true }).first().waitFor({ timeout: PATIENCE });
      const seconds = (performance.now() - startedAt) / 1000;
      await page.locator("li.run[data-state=finished]").waitFor({ timeout: PATIENCE });
      if (process.env.FERA_PARITY) console.log(`first pictures after ${seconds.toFixed(1)} s`);
      await page
        .getByRole("slider", { name: /before|after|wipe|without/i })
        .or(page.locator(".shown img"))
        .first()
        .waitFor();
      expect(await page.getByText("No routing was recorded").count()).toBe(0);
      await page.getByRole("heading", { name: "Routing during the training" }).waitFor();
      const download = page.waitForEvent("download");
      await page.getByRole("link", { name: "Download the adapter" }).click();
      const adapter = join(folder, "adapter.safetensors");
      await (await download).saveAs(adapter);
      const { stdout } = await runFera("inspect", adapter);
      expect(stdout).toMatch(/FeRA/);
      expect(stdout).toMatch(/rank 4, 3 experts, 3 bands/);
    },
    PATIENCE,
  );

  it("finds run, pictures and adapter after a reload", async () => {
    await page.reload();
    await page.locator("li.run[data-state=finished]", { hasText: "first" }).waitFor();
    await page.getByRole("link", { name: "Download the adapter" }).waitFor();
    await expect.poll(() => page.getByText("step 4", { exact: true }).count()).toBeGreaterThan(0);
  });

  it("predicts a training from an earlier one like it", async () => {
    await page.getByRole("link", { name: "Train", exact: true }).click();
    // The form begins anew with the page; what is trained on is what the run before was.
    await page.locator("#option-device").selectOption(DEVICE);
    await page.getByRole("button", { name: "Predict time and memory" }).click();
    await page.getByText("From an earlier run with the same options.").waitFor();
    await page.getByText("Memory at its peak").waitFor();
  });

  it("draws with and without the adapter, the settings in the file", async () => {
    await page.getByRole("link", { name: "Watch", exact: true }).click();
    await page.getByRole("link", { name: "Try it" }).click();
    await page.getByLabel("Prompt", { exact: true }).fill("a dot");
    await page.getByLabel("Seed", { exact: true }).fill("3");
    for (const [name, value] of Object.entries({ Steps: "3", Guidance: "2", Width: "64", Height: "64" })) {
      await page.getByLabel(name, { exact: true }).fill(value);
    }
    await page.getByLabel("Sampler").selectOption("euler");
    await page.getByLabel("keep").check();
    await page.getByLabel("Compare with no adapter").check();
    await page.getByRole("button", { name: /^Draw/ }).click();
    const drawing = page.locator("article.drawing[aria-busy=false]");
    await drawing.waitFor({ timeout: PATIENCE });
    const download = page.waitForEvent("download");
    await drawing.getByRole("link", { name: "Save" }).click();
    const saved = join(folder, "drawn.png");
    await (await download).saveAs(saved);
    expect(readGenerationSettings(await readFile(saved))?.settings).toMatchObject({
      ...{ prompt: "a dot", seed: 3, steps: 3, sampler: "euler", guidanceScale: 2, width: 64, height: 64 },
      adapters: [{ name: "first", scale: 1 }],
    });
    // Beside the picture: how its adapter was mixed.
    await drawing.getByText(/first/).first().waitFor();
  });

  it(
    "lets one tab train at a time, and shows a run that a reload cut off as stopped",
    async () => {
      await start(page, "second", { steps: "300", validateEvery: "300", validationSteps: "1" });
      await run(page, "second")
        .getByText(/[1-9]\d* of 300 steps/)
        .waitFor({ timeout: PATIENCE });
      await page.getByRole("button", { name: "Pause second" }).click();
      await page.locator("li.run[data-state=paused]", { hasText: "second" }).waitFor();
      await page.getByRole("button", { name: "Resume second" }).click();
      await page.locator("li.run[data-state=running]", { hasText: "second" }).waitFor();
      const other = await open();
      await start(other, "third", { steps: "1", validationSteps: "1" });
      await run(other, "third").getByText("waits: another tab trains").waitFor();
      await other.getByText("in another tab").first().waitFor();
      await page.reload();
      await page.locator("li.run[data-state=stopped]", { hasText: "second" }).waitFor();
      await page.locator("li.run[data-state=finished]", { hasText: "third" }).waitFor({ timeout: PATIENCE });
      await other.close();
    },
    PATIENCE,
  );

  it("says that there is no room, and leaves nothing half written", async () => {
    const session = await context.newCDPSession(page);
    await session.send("Storage.overrideQuotaForOrigin", { origin: new URL(site.url).origin, quotaSize: 1000 });
    await page.getByRole("link", { name: "Data", exact: true }).click();
    await page.getByLabel("Files to add").setInputFiles(await dot(4));
    await page.getByLabel("To dots").check();
    await page.getByRole("button", { name: "Add", exact: true }).click();
    await page
      .getByText(/the room that this browser gives the page is full/)
      .first()
      .waitFor();
    await session.send("Storage.overrideQuotaForOrigin", { origin: new URL(site.url).origin });
    await page.getByText("dots (3 images)").waitFor({ state: "attached" });
  });

  it("has thrown nothing", () => expect(errors).toEqual([]));
});
