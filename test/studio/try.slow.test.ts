// The view that draws, by clicking and by keyboard, with the real server, a tiny model and an adapter that was trained.

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readPngTexts, withPngTexts } from "../../src/images/png-text.js";
import { readGenerationSettings } from "../../src/pipelines/index.js";
import { CHROMIUM } from "../support/chromium.js";
import { plainPng } from "../support/data-folder.js";
import { runFera } from "../support/fera-program.js";
import { openStudioStage, type StudioStage } from "../support/studio-stage.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

const DRAWING_MS = 60_000;
const PROMPT = "a: red";

let stage: StudioStage;
let root: string;
let page: Page;

beforeAll(async () => {
  if (!CHROMIUM) return;
  stage = await openStudioStage(prepare);
  ({ root, page } = stage);
  await page.getByRole("link", { name: "Try", exact: true }).click();
  await page.getByLabel("Model").selectOption(join(root, "tiny"));
});

afterAll(() => stage?.close());

async function prepare(root: string) {
  const [model, data] = [join(root, "tiny"), join(root, "data")];
  await writeTinyPipeline(model);
  await mkdir(data);
  for (let i = 0; i < 2; i++) await writeFile(join(data, `${i}.png`), await plainPng(i * 31));
  const trained = await runFera(
    ...["train", "--model", model, "--data", data, "--output", join(root, "runs", "routed")],
    ...["--steps", "2", "--batch-size", "1", "--rank", "2", "--learning-rate", "0.01", "--validation-split", "0"],
  );
  if (trained.code !== 0) throw new Error(trained.stderr);
  return { data: [data], models: [model] };
}

const newest = () => page.locator("article.drawing").first();
const prompt = () => page.getByLabel("Prompt", { exact: true });
const seed = () => page.getByRole("textbox", { name: "Seed" });

/** Clicks, and waits until all of it is drawn. */
async function draw(button: string): Promise<void> {
  const before = await page.locator("article.drawing").count();
  await page.getByRole("button", { name: button, exact: true }).click();
  await expect.poll(() => page.locator("article.drawing").count()).toBe(before + 1);
  await page.locator('article.drawing[aria-busy="false"]').nth(before).waitFor({ timeout: DRAWING_MS });
}

/** What "Save" gives of the n-th picture of the newest drawing. */
async function saved(place = 0): Promise<Buffer> {
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    newest().getByRole("link", { name: "Save" }).nth(place).click(),
  ]);
  expect(download.suggestedFilename()).toMatch(/^fera-\d+-.*\.png$/);
  return readFile(await download.path());
}

/** Drops a file onto the view. */
async function drop(name: string, bytes: Uint8Array): Promise<void> {
  const transfer = await page.evaluateHandle(
    ({ name, content }) => {
      const data = new DataTransfer();
      data.items.add(new File([Uint8Array.from(content)], name, { type: "image/png" }));
      return data;
    },
    { name, content: [...bytes] },
  );
  await page.dispatchEvent(".drop", "drop", { dataTransfer: transfer });
}

describe.skipIf(!CHROMIUM)("the try view", () => {
  it("says which fields are to be mended, and draws nothing", async () => {
    await prompt().fill(PROMPT);
    await page.getByRole("textbox", { name: "Steps" }).fill("none");
    await page.getByRole("button", { name: "Draw", exact: true }).click();
    await page.getByText("Type a whole number from 1 to 1000.").waitFor();
    expect(await page.getByRole("textbox", { name: "Steps" }).getAttribute("aria-invalid")).toBe("true");
    expect(await page.locator("article.drawing").count()).toBe(0);
    await page.getByRole("textbox", { name: "Steps" }).fill("3");
  });

  it("draws with an adapter and without it, side by side, with the gates beside", async () => {
    await page.getByRole("group", { name: "Adapters" }).getByRole("checkbox").check();
    await page.getByRole("slider", { name: /^Scale of/ }).press("ArrowLeft");
    await page.getByLabel("Compare with no adapter").check();
    await page.getByLabel("keep").check();
    await seed().fill("11");
    await draw("Draw 2 pictures");
    const line = newest().getByRole("slider", { name: /^Line between without and with adapters/ });
    await line.press("Home");
    expect(await line.getAttribute("aria-valuetext")).toBe("0 percent without");
    await newest()
      .getByRole("figure", { name: /^Gates of/ })
      .waitFor();
    await newest()
      .getByText(/^seed 11, 3 steps, guidance 7.5, the model's sampler, 32×32, .* at 0.95/)
      .waitFor();
  });

  it("saves a picture with its settings for fera, A1111 and ComfyUI", async () => {
    const bytes = await saved();
    const found = readGenerationSettings(bytes)!;
    expect(found.settings).toMatchObject({
      ...{
        prompt: PROMPT,
        seed: 11,
        steps: 3,
        guidanceScale: 7.5,
        width: 32,
        height: 32,
        model: "tiny",
        sampler: "ddim",
      },
      adapters: [{ scale: 0.95 }],
    });
    const texts = new Map(readPngTexts(bytes).map(({ keyword, text }) => [keyword, text]));
    expect(texts.get("parameters")).toContain("Steps: 3, Sampler: DDIM, CFG scale: 7.5, Seed: 11, Size: 32x32");
    expect(JSON.parse(texts.get("prompt")!)).toHaveProperty(["1", "class_type"], "CheckpointLoaderSimple");
    expect(bytes.includes(root)).toBe(false);

    // 2. Dropped onto the page, it fills the form again.
    await prompt().fill("something else");
    await seed().fill("5");
    await page.getByRole("group", { name: "Adapters" }).getByRole("checkbox").uncheck();
    await drop("mine.png", bytes);
    await page.getByText("The form has the settings of mine.png, written by fera.").waitFor();
    expect(await prompt().inputValue()).toBe(PROMPT);
    expect(await seed().inputValue()).toBe("11");
    expect(await page.getByRole("slider", { name: /^Scale of/ }).inputValue()).toBe("0.95");
  });

  it("takes what it can of a picture of A1111, and says what it cannot; of one without settings that it has none", async () => {
    const plain = new Uint8Array(await plainPng());
    const text = "<lora:unknown:0.7> blue\nSteps: 4, Sampler: Heun, CFG scale: 3, Seed: 9, Size: 32x32, Model: other";
    const file = join(root, "a1111.png");
    await writeFile(file, withPngTexts(plain, [{ keyword: "parameters", text }]));
    await page.getByLabel("Picture to take settings from").setInputFiles(file);
    await page.getByText("settings of a1111.png, written by A1111").waitFor();
    for (const note of ["model “other”", "Sampler: Heun", "adapter “unknown”"]) {
      await page.locator(".told li", { hasText: note }).waitFor();
    }
    expect(await prompt().inputValue()).toBe("blue");
    expect(await page.getByRole("textbox", { name: "Steps" }).inputValue()).toBe("4");
    await drop("<img src=x>.png", plain);
    await page.getByText("<img src=x>.png holds no settings").waitFor();
    await drop("notes.txt", new TextEncoder().encode("no picture"));
    await page.getByText("notes.txt: is no PNG file. Only PNG files are read.").waitFor();
  });

  it("draws a grid over two options, opens a picture of it, and takes its settings", async () => {
    await page.getByLabel("Compare with no adapter").uncheck();
    await page.getByRole("group", { name: "Adapters" }).getByRole("checkbox").check();
    await page.getByRole("textbox", { name: "Steps" }).fill("2");
    await page.getByLabel("Grid over options").check();
    await page.getByLabel("Across: values").fill("0, 1");
    await page.getByLabel("Down: option").selectOption("seed");
    await page.getByLabel("Down: values").fill("3-2");
    await page
      .getByRole("button", { name: "Draw", exact: true })
      .or(page.getByRole("button", { name: /^Draw \d/ }))
      .click();
    await page.getByText("The range “3-2” goes down; type 2-3.").waitFor();
    await page.getByLabel("Down: values").fill("2-3");
    await draw("Draw 4 pictures");
    const grid = newest().getByRole("table");
    expect(await grid.getByRole("columnheader").allInnerTexts()).toEqual(["adapter scale 0", "adapter scale 1"]);
    expect(await grid.getByRole("rowheader").allInnerTexts()).toEqual(["seed 2", "seed 3"]);
    const last = readGenerationSettings(await saved(3))!.settings;
    expect(last).toMatchObject({ seed: 3, adapters: [{ scale: 1 }] });

    await newest()
      .getByRole("button", { name: /^Open large/ })
      .nth(3)
      .press("Enter");
    await page
      .getByRole("dialog")
      .getByRole("figure", { name: /^Energies of/ })
      .waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await newest().getByRole("button", { name: "Use these settings" }).nth(3).click();
    expect(await seed().inputValue()).toBe("3");
    expect(await page.getByLabel("Grid over options").isChecked()).toBe(false);
  });

  it("keeps what was drawn when the view is left, and cancels a drawing that takes long", async () => {
    await page.getByRole("link", { name: "Watch", exact: true }).click();
    await page.getByRole("link", { name: "Try", exact: true }).click();
    expect(await page.locator("article.drawing").count()).toBe(2);
    await page.getByRole("textbox", { name: "Steps" }).fill("500");
    await page.getByRole("button", { name: "Draw", exact: true }).click();
    await newest().getByRole("button", { name: "Cancel" }).click();
    await newest().getByText("Cancelled before the first picture.").waitFor();
  });

  it("says why nothing could be drawn", async () => {
    await prompt().fill("red ".repeat(40));
    await page.getByRole("textbox", { name: "Steps" }).fill("2");
    await draw("Draw");
    await newest()
      .getByRole("alert")
      .getByText(/does not fit/)
      .waitFor();
  });

  it("met no error in the page", () => expect(stage.errors).toEqual([]));
});
