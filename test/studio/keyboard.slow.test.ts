// The whole journey by keyboard alone: from opening the page over captions and a training to drawing with what was trained.

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Locator, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CHROMIUM } from "../support/chromium.js";
import { plainPng } from "../support/data-folder.js";
import { openStudioStage, type StudioStage } from "../support/studio-stage.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

/** More presses than any view has stops. */
const MOST_PRESSES = 150;
const TRAINING_MS = 180_000;

let stage: StudioStage;
let page: Page;

beforeAll(async () => {
  if (!CHROMIUM) return;
  stage = await openStudioStage(prepare);
  page = stage.page;
});

afterAll(() => stage?.close());

async function prepare(root: string) {
  await writeTinyPipeline(join(root, "tiny"));
  await mkdir(join(root, "data", "dogs"), { recursive: true });
  for (let i = 0; i < 4; i++) await writeFile(join(root, "data", "dogs", `${i}.png`), await plainPng(i * 31));
  return { data: [join(root, "data")], models: [join(root, "tiny")] };
}

const press = (key: string) => page.keyboard.press(key);
const hasFocus = (wanted: Locator) => wanted.evaluate((element) => element === document.activeElement);

/** Goes forward to something, as one does who sees it. */
async function tabTo(wanted: Locator, key = "Tab"): Promise<void> {
  await wanted.waitFor();
  for (let presses = 0; presses < MOST_PRESSES; presses++) {
    if (await hasFocus(wanted)) return;
    await press(key);
  }
  throw new Error(`${wanted} is not reached by ${key}.`);
}

/** Replaces what a field holds. */
async function type(field: Locator, text: string): Promise<void> {
  await tabTo(field);
  await press("Control+a");
  await page.keyboard.type(text);
}

/** Whether the focus is somewhere, and can be seen. */
async function expectVisibleFocus(): Promise<void> {
  const outline = await page.evaluate(() => {
    const { activeElement } = document;
    return activeElement === document.body ? "none: body" : getComputedStyle(activeElement!).outlineStyle;
  });
  expect(outline).not.toMatch(/^none/);
}

describe.skipIf(!CHROMIUM)("by keyboard alone", () => {
  it("goes past the navigation to the content", async () => {
    await page.locator(".card").first().waitFor();
    await press("Tab");
    await expectVisibleFocus();
    expect(await hasFocus(page.getByRole("button", { name: "Skip to the content" }))).toBe(true);
    await press("Enter");
    expect(await hasFocus(page.locator("main"))).toBe(true);
  });

  it("writes captions, looks at an image large, and comes back to where it was", async () => {
    const look = page.getByRole("button", { name: "Look at 0.png" });
    await tabTo(look);
    await expectVisibleFocus();
    await press("Enter");
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("heading", { name: "0.png" }).waitFor();
    await press("ArrowRight");
    await dialog.getByRole("heading", { name: "1.png" }).waitFor();
    await press("Escape");
    await dialog.waitFor({ state: "detached" });
    expect(await hasFocus(look)).toBe(true);
    for (let i = 0; i < 4; i++) {
      await type(page.locator(`.card[data-name="${i}.png"]`).getByRole("textbox"), `a red dog ${i}`);
      await press("Control+Enter");
    }
    await expect
      .poll(() => readFile(join(stage.root, "data", "dogs", "3.txt"), "utf8").catch(() => ""))
      .toBe("a red dog 3\n");
  });

  it("follows a link to the form, keeps a place there, and starts a training", async () => {
    await tabTo(page.getByRole("link", { name: "Train on it" }), "Shift+Tab");
    await press("Enter");
    await page.getByLabel("Steps", { exact: true }).waitFor();
    await expect.poll(() => hasFocus(page.locator("main"))).toBe(true);
    await type(page.getByLabel("Validation prompts", { exact: true }), "a red dog");
    await type(page.getByLabel("Rank", { exact: true }), "2");
    await type(page.getByLabel("Steps", { exact: true }), "4");
    const search = page.getByPlaceholder(/^Search \d+ options$/);
    await type(search, "validation steps");
    await type(page.getByLabel("Validation steps", { exact: true }), "2");
    await type(page.getByLabel("Name of the run"), "keys");
    const start = page.getByRole("button", { name: "Start training", exact: true });
    await expect.poll(() => start.isEnabled()).toBe(true);
    await tabTo(start);
    await press("Enter");
    await page.waitForURL((url) => url.hash === "#/watch?run=keys");
    await expect.poll(() => hasFocus(page.locator("main"))).toBe(true);
  });

  it("watches it to its end, and goes through its pictures", async () => {
    await page.locator(".state", { hasText: /^Finished$/ }).waitFor({ timeout: TRAINING_MS });
    const line = page.getByRole("slider", { name: /^Line between/ }).first();
    await tabTo(line);
    const before = await line.getAttribute("aria-valuetext");
    await press("Home");
    expect(await line.getAttribute("aria-valuetext")).not.toBe(before);
  });

  it("draws with the adapter and without it", async () => {
    await tabTo(page.getByRole("link", { name: "Try", exact: true }), "Shift+Tab");
    await press("Enter");
    await type(page.getByRole("textbox", { name: "Prompt", exact: true }), "a red dog");
    await tabTo(page.getByRole("group", { name: "Adapters" }).getByRole("checkbox"));
    await press("Space");
    await tabTo(page.getByLabel("Compare with no adapter"));
    await press("Space");
    await type(page.getByRole("textbox", { name: "Steps" }), "2");
    await tabTo(page.getByRole("button", { name: "Draw 2 pictures" }));
    await press("Enter");
    const wipe = page.getByRole("slider", { name: /^Line between without and with adapters/ });
    await wipe.waitFor({ timeout: TRAINING_MS });
    await tabTo(wipe);
    await press("End");
    expect(await wipe.getAttribute("aria-valuetext")).toBe("100 percent without");
  });

  it("has no error of its own", () => expect(stage.errors).toEqual([]));
});
