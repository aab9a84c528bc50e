// How every view looks, and whether axe finds a serious fault of accessibility in it: at two sizes, light and dark, with a real run
// to watch and real pictures. FERA_SCREENSHOTS=FOLDER makes the pictures of the documentation, with the embedded model.

import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AxeResults } from "axe-core";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { encodePng } from "../../src/images/image-file.js";
import type { RunSummary } from "../../src/studio/protocol.js";
import { captionOf, rasterizeIcons } from "../../src/training/data/icons.js";
import { CHROMIUM, launchChromium } from "../support/chromium.js";
import { type StartedStudio, startStudio } from "../support/studio.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

const PICTURES = process.env.FERA_SCREENSHOTS;
const SIZES = { wide: { width: 1280, height: 800 }, narrow: { width: 420, height: 900 } } as const;
const SCHEMES = ["light", "dark"] as const;
const NAMES = ["red-apple", "guitar", "rocket", "cat-face", "sunflower", "umbrella", "snowman", "key"];
/** A training of a few steps begins, draws and ends within it on a busy machine. */
const TRAINING_MS = 300_000;

describe.skipIf(!CHROMIUM)("every view", () => {
  let root: string;
  let studio: StartedStudio;
  let browser: Browser;
  let page: Page;
  let axe: string;

  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), "fera-studio-look-"));
    const model = PICTURES ? "embedded" : join(root, "tiny");
    if (!PICTURES) await writeTinyPipeline(model);
    const data = join(root, "data", "high contrast");
    await writeIcons(data);
    studio = await startStudio({
      data: [join(root, "data")],
      runs: join(root, "runs"),
      models: PICTURES ? [] : [model],
    });
    const shared = {
      model,
      data: [data],
      learningRate: 2e-3,
      batchSize: 4,
      validationLossEvery: 10,
      validationSplit: 0.25,
    };
    const length = PICTURES
      ? { steps: 120, validateEvery: 20, resolution: 128, validationSteps: 15 }
      : { steps: 4, validateEvery: 2, validationSteps: 3 };
    const drawn = PICTURES ? ["rocket", "cat face"] : ["a red circle"];
    const settings = { ...shared, ...length, validationPrompts: drawn };
    await studio.api("runs", { name: "routed", settings: { ...settings, adapter: "fera", rank: 8, alpha: 24 } });
    await studio.api("runs", { name: "plain", settings: { ...settings, adapter: "lora", rank: 24, alpha: 24 } });
    for (const name of ["routed", "plain"]) {
      const { state, error } = await studio.runUntil(name, isOver, 2 * TRAINING_MS);
      expect(state, error).toBe("finished");
    }
    browser = await launchChromium();
    page = await studio.openStudio(browser);
    axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
    if (PICTURES) await mkdir(PICTURES, { recursive: true });
  }, 2 * TRAINING_MS);

  afterAll(async () => {
    await browser?.close();
    await studio?.stop();
    await rm(root, { recursive: true, force: true, maxRetries: 5 });
  });

  /** Looks at what the page shows now. */
  async function look(name: string): Promise<void> {
    for (const [size, viewport] of Object.entries(SIZES)) {
      await page.setViewportSize(viewport);
      for (const colorScheme of SCHEMES) {
        await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
        await page.waitForTimeout(PICTURES ? 1000 : 300);
        expect(await serious(page, axe), `${name}, ${size}, ${colorScheme}`).toEqual([]);
        expect(await tooWide(), `${name}, ${size}: pixels that stick out`).toBeLessThanOrEqual(0);
        if (PICTURES) {
          await page.evaluate(hideFolder, root);
          await page.screenshot({
            path: join(PICTURES, `${name}-${size}-${colorScheme}.png`),
            // The row that draws stays at the window's foot: in a picture of the whole page it would lie over the form.
            fullPage: size === "wide" && name !== "try",
          });
        }
      }
    }
    // A small telephone, and a wide window at 400 %.
    await page.setViewportSize({ width: 320, height: 640 });
    await page.waitForTimeout(300);
    expect(await tooWide(), `${name}, 320 pixels: pixels that stick out`).toBeLessThanOrEqual(0);
    await page.setViewportSize(SIZES.wide);
  }

  const tooWide = () =>
    page.evaluate<number>("document.documentElement.scrollWidth - document.documentElement.clientWidth");

  const open = (address: string) => page.goto(`${studio.origin}/${address}`);

  it("tells what is chosen, and which curve is which, where the reader's own few colours replace all", async () => {
    await page.emulateMedia({ forcedColors: "active" });
    try {
      await open("#/watch?run=routed");
      const styleOf = (selector: string, name: string) =>
        page
          .locator(selector)
          .first()
          .evaluate((element, property) => getComputedStyle(element).getPropertyValue(property), name);
      await page.locator(".swatch").first().waitFor();
      for (const selector of ['.bar a[aria-current="page"]', ".run.selected"]) {
        expect(await styleOf(selector, "outline-style"), selector).toBe("solid");
      }
      expect(await styleOf(".bar a:not([aria-current])", "outline-style")).toBe("none");
      const behind = await styleOf("body", "background-color");
      expect(await styleOf(".swatch", "background-color")).not.toBe(behind);
    } finally {
      await page.emulateMedia({ forcedColors: "none" });
    }
  });

  it("Data: a grid of pictures with captions", { timeout: TRAINING_MS }, async () => {
    await open("#/data");
    await page.getByRole("textbox").first().waitFor();
    await look("data");
  });

  it("Train: the form", { timeout: TRAINING_MS }, async () => {
    await open("#/train");
    await page.getByLabel("Steps", { exact: true }).waitFor();
    await look("train");
  });

  it("Watch: curves, samples and routing of a run, another beside it", { timeout: TRAINING_MS }, async () => {
    await open("#/watch?run=routed");
    await page
      .getByRole("heading", { name: /routing/i })
      .first()
      .waitFor();
    await look("watch");
  });

  it("Try: a picture, its gates, and the one without the adapter", { timeout: TRAINING_MS }, async () => {
    await open("#/try");
    await page.getByLabel("Prompt", { exact: true }).fill(PICTURES ? "cat face" : "a red circle");
    await page.getByLabel("Steps", { exact: true }).fill(PICTURES ? "20" : "2");
    await page.getByRole("checkbox", { name: /routed/ }).check();
    await page.getByRole("checkbox", { name: /compare/i }).check();
    await page.getByRole("button", { name: /^Draw/ }).click();
    await page.locator('article[aria-busy="false"] img').first().waitFor({ timeout: TRAINING_MS });
    await look("try");
  });
});

/** Folders are somebody's own in the documentation, not this machine's. Runs in the page. */
function hideFolder(folder: string): void {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode as Text;
    if (node.data.includes(folder)) node.data = node.data.replaceAll(folder, "/home/me");
  }
}

/** Icons with captions, as somebody's own pictures would lie in a folder. */
async function writeIcons(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const side = 128;
  const pixels = 3 * side * side;
  const rgb = await rasterizeIcons("fluent-emoji-high-contrast", NAMES, side);
  for (const [i, name] of NAMES.entries()) {
    const data = rgb.subarray(i * pixels, (i + 1) * pixels);
    await writeFile(join(folder, `${name}.png`), await encodePng({ width: side, height: side, data }));
    await writeFile(join(folder, `${name}.txt`), PICTURES ? captionOf(name) : "a red circle");
  }
}

const isOver = ({ state }: RunSummary): boolean => state === "finished" || state === "failed";

/** What axe calls serious or critical, a line each: the rule and the first element. */
async function serious(page: Page, axe: string): Promise<string[]> {
  await page.evaluate(axe);
  const { violations } = (await page.evaluate("axe.run(document)")) as AxeResults;
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, help, nodes }) => `${id}: ${help}: ${nodes[0]!.html} (${nodes.length})`);
}
