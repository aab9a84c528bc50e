// The view that watches runs, by clicking and by keyboard: a real training of a few steps as it goes on, and one of the
// command line.

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Locator, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RunDetails } from "../../src/studio/protocol.js";
import { CHROMIUM } from "../support/chromium.js";
import { plainPng } from "../support/data-folder.js";
import { runFera } from "../support/fera-program.js";
import type { StartedStudio } from "../support/studio.js";
import { openStudioStage, runNamed, type StudioStage } from "../support/studio-stage.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

const TRAINING_MS = 180_000;
const PROMPT = "<b>red";
const STEPS = 6;

let stage: StudioStage;
let root: string;
let studio: StartedStudio;
let page: Page;

beforeAll(async () => {
  if (!CHROMIUM) return;
  stage = await openStudioStage(prepare);
  ({ root, studio, page } = stage);
  await page.getByRole("link", { name: "Watch", exact: true }).click();
});

afterAll(() => stage?.close());

async function prepare(root: string) {
  await writeTinyPipeline(join(root, "tiny"));
  await mkdir(join(root, "data"));
  for (let i = 0; i < 4; i++) await writeFile(join(root, "data", `${i}.png`), await plainPng(i * 31));
  return { data: [join(root, "data")], models: [join(root, "tiny")] };
}

const runOf = (name: string) => runNamed(page, name);
const chart = (name: string | RegExp) =>
  page.getByRole("figure", typeof name === "string" ? { name, exact: true } : { name });
const summary = (figure: Locator) => figure.getByRole("img").getAttribute("aria-label");
const fact = (name: string) =>
  page.locator("dl.facts > div", { has: page.getByText(name, { exact: true }) }).locator("dd");

describe.skipIf(!CHROMIUM)("the watch view", () => {
  it("says what to do where there is no run", async () => {
    await page.getByText("Start a training, and its curves and pictures are drawn here.").waitFor();
  });

  it("follows a training: its loss, its numbers, its pictures", async () => {
    await studio.api("runs", {
      name: "routed",
      settings: {
        ...{
          model: join(root, "tiny"),
          data: [join(root, "data")],
          steps: STEPS,
          batchSize: 2,
          rank: 2,
          seed: 3,
          feclWeight: 0.1,
        },
        ...{ validationSplit: 0.25, validationLossEvery: 2 },
        ...{ validationPrompts: [PROMPT], validateEvery: 2, validationSteps: 4 },
      },
    });
    await runOf("routed").waitFor();
    // Before the end, without a reload.
    await expect
      .poll(() => summary(chart("Training loss")), { timeout: TRAINING_MS })
      .toMatch(/loss, smoothed: [\d.]+ at step 1/);
    await fact("State").getByText("Finished").waitFor({ timeout: TRAINING_MS });
    expect(await fact("Steps").innerText()).toBe(`${STEPS} of ${STEPS}`);
    await expect.poll(() => summary(chart("Training loss"))).toContain(`at step ${STEPS}`);
    expect(await summary(chart("Training loss"))).toContain("fecl: ");
    for (const name of [
      "Validation loss",
      "Validation loss by timestep",
      "Validation loss by frequency",
      "Learning rate",
    ]) {
      expect(await summary(page.getByRole("figure", { name, exact: true })), name).not.toContain("nothing yet");
    }
    await expect
      .poll(() =>
        page
          .getByRole("list", { name: /^Pictures of/ })
          .getByRole("button")
          .count(),
      )
      .toBe(STEPS / 2);
  });

  it("smooths the loss as the slider says, and hides a curve by its button", async () => {
    const before = await summary(chart("Training loss"));
    await page.getByLabel("Smoothing").press("Home");
    await expect.poll(() => summary(chart("Training loss"))).not.toBe(before);
    const button = chart("Training loss").getByRole("button", { name: /^fecl/ });
    await button.press("Space");
    expect(await button.getAttribute("aria-pressed")).toBe("false");
    await page.getByLabel("Logarithmic").check();
    await chart("Training loss").getByText("As a table").click();
    const rows = chart("Training loss").getByRole("row");
    expect(await rows.count()).toBe(1 + STEPS);
  });

  it("shows the pictures of a step by keyboard, before against after", async () => {
    const slider = page.getByLabel("Step of the samples");
    await page.locator(".samples-head output").getByText(`step ${STEPS}`).waitFor();
    await slider.press("ArrowLeft");
    await page
      .locator(".samples-head output")
      .getByText(`step ${STEPS - 2}`)
      .waitFor();
    const after = page.getByRole("img", { name: `${PROMPT}, step ${STEPS - 2}` });
    expect(await after.evaluate((image: HTMLImageElement) => image.decode().then(() => image.naturalWidth))).toBe(32);
    const line = page.getByLabel(`Line between without the adapter and step ${STEPS - 2} of ${PROMPT}`);
    await line.press("End");
    expect(await line.getAttribute("aria-valuetext")).toBe("100 percent without the adapter");
    const shown = await page
      .getByRole("img", { name: `${PROMPT}, without the adapter` })
      .evaluate((image) => getComputedStyle(image).clipPath);
    expect(shown).toMatch(/inset\(0(px)? (0%|0px|calc\(0%\))/);
    await page.getByRole("button", { name: "Play" }).click();
    await page.locator(".samples-head output").getByText(`step ${STEPS}`).waitFor();
  });

  it("shows the routing from noise to image, and how the gates moved", async () => {
    const details = await studio.api<RunDetails>("run?id=routed");
    expect(details.pictures[0]!.steps[0]!.routes).toHaveLength(1);
    await chart(/^Gates of .*step 6/).waitFor();
    await chart(/^Energies of .*step 6/).waitFor();
    const told = await summary(chart(/^Gates of .*step 6/));
    expect(told).toMatch(/Expert \d leads|mixed alike from noise to image/);
    await chart("The router's gates, mean over all timesteps").waitFor();
    await page.getByRole("slider", { name: "Timestep" }).press("ArrowRight");
    await chart(/The router's gates, timestep \d+/).waitFor();
  });

  it("finds a run of the command line while it goes on, and compares it", async () => {
    const { code, stderr } = await runFera(
      ...[
        "train",
        "--model",
        join(root, "tiny"),
        "--data",
        join(root, "data"),
        "--output",
        join(root, "runs", "by-hand"),
      ],
      ...["--adapter", "lora", "--steps", "3", "--batch-size", "2", "--rank", "2"],
    );
    expect(code, stderr).toBe(0);
    await runOf("by-hand").getByText("from the command line").waitFor();
    await runOf("by-hand").getByLabel("Compare").check();
    await chart("Training loss")
      .getByRole("button", { name: /^by-hand/ })
      .waitFor();
    const row = page.getByRole("row", { name: /^adapter / });
    expect(await row.innerText()).toMatch(/fera\s+lora/);
    await expect.poll(() => summary(chart("Training loss"))).toMatch(/routed: .* at step 6.*by-hand: .* at step 3/);
  });

  it("says of an adapter without a router that there is no routing, and gives the adapter away", async () => {
    await runOf("by-hand").getByRole("link", { name: "by-hand" }).click();
    await page.getByText("This adapter (lora) has no router").waitFor();
    const link = page.getByRole("link", { name: "Download the adapter" });
    const [download] = await Promise.all([page.waitForEvent("download"), link.click()]);
    expect(download.suggestedFilename()).toMatch(/\.safetensors$/);
    await page.reload();
    await page.getByRole("heading", { name: "by-hand" }).waitFor();
  });

  it("tells of experts that stay closed", async () => {
    const settings = { model: join(root, "tiny"), data: [join(root, "data")], steps: 2, batchSize: 2, rank: 2 };
    await studio.api("runs", {
      name: "closed",
      settings: { ...settings, router: "gates-are-energies", bands: "complete" },
    });
    await runOf("closed").getByRole("link", { name: "closed" }).click();
    await page.getByText(/^Experts? .* closed at every timestep.*sigmaDivisor/).waitFor({ timeout: TRAINING_MS });
  });

  it("tells in words why a run failed", async () => {
    await studio.api("runs", {
      name: "failing",
      settings: {
        model: join(root, "tiny"),
        data: [join(root, "data")],
        steps: 2,
        validationPrompts: ["red ".repeat(40)],
      },
    });
    await runOf("failing").getByRole("link", { name: "failing" }).click();
    await page
      .getByRole("alert")
      .getByText(/does not fit/)
      .waitFor({ timeout: TRAINING_MS });
  });

  it("met no error in the page", () => expect(stage.errors).toEqual([]));
});
