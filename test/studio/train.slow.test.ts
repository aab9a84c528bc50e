// The view that starts trainings, by clicking and by keyboard, with the real server and real trainings of a few steps.

import { execFile } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CHROMIUM } from "../support/chromium.js";
import { plainPng } from "../support/data-folder.js";
import { openStudioStage, runNamed, type StudioStage } from "../support/studio-stage.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

const IMAGES = 6;
/** A shell and a page would make something else of it. */
const PROMPT = "a '$X\"";
/** A training begins and ends within it on a busy machine. */
const TRAINING_MS = 180_000;

let stage: StudioStage;
let root: string;
let page: Page;

beforeAll(async () => {
  if (!CHROMIUM) return;
  stage = await openStudioStage(prepare);
  ({ root, page } = stage);
  await page.getByRole("link", { name: "Train", exact: true }).click();
  await page.getByLabel("Steps", { exact: true }).waitFor();
});

afterAll(() => stage?.close());

async function prepare(root: string) {
  await writeTinyPipeline(join(root, "tiny"));
  await mkdir(join(root, "data", "dogs"), { recursive: true });
  for (let i = 0; i < IMAGES; i++) {
    await writeFile(join(root, "data", "dogs", `${i}.png`), await plainPng(i * 31));
    await writeFile(join(root, "data", "dogs", `${i}.txt`), `a red circle ${i}`);
  }
  return { data: [join(root, "data")], models: [join(root, "tiny")] };
}

const option = (name: string) => page.locator(`[data-option="${name}"]`);
const runOf = (name: string) => runNamed(page, name);
const search = (text: string) => page.getByPlaceholder(/^Search \d+ options$/).fill(text);
const startButton = () => page.getByRole("button", { name: /^(Start|Queue) training$/ });
const shownSettings = async () => JSON.parse(await page.locator(".run-json").innerText()) as Record<string, unknown>;

/** Waits until a run is in a state, or has failed, which is told with the reason. */
async function state(name: string, wanted: string): Promise<void> {
  const isThere = runOf(name).locator(".state", { hasText: new RegExp(`^(${wanted}|Failed)$`) });
  await isThere.waitFor({ timeout: TRAINING_MS });
  expect(await runOf(name).innerText()).toContain(wanted);
}

/** Names a run and starts it, then comes back to the form. */
async function start(name: string): Promise<void> {
  await page.getByLabel("Name of the run").fill(name);
  await startButton().click();
  await page.waitForURL((url) => url.hash === `#/watch?run=${name}`);
  await page.getByRole("link", { name: "Train", exact: true }).click();
}

/** What a run wrote, without the version of the library. */
async function runJson(folder: string): Promise<Record<string, unknown>> {
  const { fera: _, ...settings } = JSON.parse(await readFile(join(folder, "run.json"), "utf8"));
  return settings;
}

describe.skipIf(!CHROMIUM)("the train view", () => {
  it("suggests what fits the data, and says why", async () => {
    await option("steps").getByText(`Each of ${IMAGES} images is seen about 133 times.`).waitFor();
    expect(await page.getByLabel("Steps", { exact: true }).inputValue()).toBe("200");
    expect(await page.getByLabel("Validation prompts", { exact: true }).inputValue()).toBe(
      "a red circle 0\na red circle 3",
    );
    expect(await option("resolution").innerText()).toContain("the model's own size: 32 pixels");
    expect(await option("steps").getAttribute("data-changed")).toBe("true");
    expect(await option("rank").getAttribute("data-changed")).toBe("false");
  });

  it("shows a problem beside its field as it is typed, and starts nothing", async () => {
    await page.getByLabel("Steps", { exact: true }).fill("many");
    await option("steps").getByText('--steps must be an integer of 1 or more; got "many".').waitFor();
    expect(await page.getByLabel("Steps", { exact: true }).getAttribute("aria-invalid")).toBe("true");
    expect(await startButton().isDisabled()).toBe(true);
    // Two that contradict each other, of which one is folded away.
    await page.getByLabel("Steps", { exact: true }).fill("4");
    await search("warmup");
    await page.getByLabel("Warmup", { exact: true }).fill("9");
    await search("");
    await option("warmup").getByText("--warmup must not exceed --steps; got 9 and 4.").waitFor();
    await page.getByRole("list", { name: "Problems" }).getByRole("button", { name: "Warmup" }).click();
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("option-warmup");
    await page.getByRole("button", { name: "Reset Warmup to 0" }).click();
    await page.getByText("problem to mend").waitFor({ state: "detached" });
  });

  it("shows the command and the run.json that the command line makes of it, and of the run that it starts", async () => {
    await page.getByLabel("Rank", { exact: true }).fill("2");
    await page.getByLabel("Batch size").fill("1");
    await page.getByLabel("Validation prompts", { exact: true }).fill(PROMPT);
    await search("validation steps");
    await page.getByLabel("Validation steps", { exact: true }).fill("1");
    await search("");
    await page.getByText("run.json", { exact: true }).click();
    await page.waitForFunction(() => document.querySelector(".run-json")?.textContent?.includes('"rank": 2'));
    await expect.poll(() => shownSettings()).toMatchObject({ steps: 4, batchSize: 1 });
    const command = await page.locator(".command").innerText();
    const shown = await shownSettings();
    await start("by-click");
    await state("by-click", "Finished");
    expect(await runJson(join(root, "runs", "by-click"))).toEqual(shown);

    const typed = command
      .replace(/^npx fera/, `'${process.execPath}' dist/cli/main.js`)
      .replace("runs/RUN", join(root, "typed"));
    await promisify(execFile)("sh", ["-c", typed]);
    expect(await runJson(join(root, "typed"))).toEqual(shown);
  });

  it("keeps the form when the view is left, and hands it over as a file and back", async () => {
    await page.getByRole("link", { name: "Data", exact: true }).click();
    await page.getByRole("heading", { name: "Data", exact: true }).waitFor();
    await page.getByRole("link", { name: "Train", exact: true }).click();
    expect(await page.getByLabel("Rank", { exact: true }).inputValue()).toBe("2");
    await page.waitForFunction(() => document.querySelector(".run-json")?.textContent?.includes('"rank": 2'));

    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("button", { name: "Export" }).click(),
    ]);
    const exported = JSON.parse(await readFile(await download.path(), "utf8"));
    expect(exported).toMatchObject({ rank: 2, steps: 4, model: join(root, "tiny") });

    await page.getByRole("button", { name: "Reset all" }).click();
    await expect.poll(() => page.getByLabel("Rank", { exact: true }).inputValue()).toBe("");
    const file = {
      name: "mine.json",
      mimeType: "application/json",
      buffer: Buffer.from(JSON.stringify({ ...exported, rnk: 3 })),
    };
    await page.getByLabel("Settings to import").setInputFiles(file);
    await page.getByText("Not taken, as the form has no such option: rnk.").waitFor();
    expect(await page.getByLabel("Rank", { exact: true }).inputValue()).toBe("2");
    await page.getByLabel("Settings to import").setInputFiles({ ...file, buffer: Buffer.from("no json") });
    await page.getByText("mine.json: The file is no JSON").waitFor();
  });

  it("predicts time and memory before it starts, and says from what", async () => {
    await page.getByRole("button", { name: /^Predict/ }).click();
    const figures = page.locator(".figures");
    await figures.waitFor({ timeout: TRAINING_MS });
    expect(await figures.innerText()).toMatch(
      /Whole training\s+\d+ (s|min).*One step\s+[\d.]+ s.*Memory at its peak\s+\d+ MB of/s,
    );
    expect(await page.locator(".prediction").innerText()).toMatch(/From .+\./);
    await page.getByLabel("Rank", { exact: true }).fill("3");
    await page.locator(".prediction").getByText("The settings have changed since.").waitFor();
    // Of these there is no run yet: steps are run, until that is aborted.
    await page.getByRole("button", { name: "Predict again" }).click();
    await page.getByText("Running a few steps to measure them").waitFor();
    await page.getByRole("button", { name: "Abort" }).click();
    await page.getByRole("button", { name: "Predict time and memory" }).waitFor();
  });

  it("takes the settings of an earlier run", async () => {
    await page.getByRole("button", { name: "Reset all" }).click();
    await page.getByRole("combobox", { name: "Use the settings of a run" }).selectOption("by-click");
    await expect.poll(() => page.getByLabel("Rank", { exact: true }).inputValue()).toBe("2");
    expect(await page.getByLabel("Validation prompts", { exact: true }).inputValue()).toBe(PROMPT);
  });

  it("pauses, resumes and stops a training, and starts the next of the queue, by keyboard", async () => {
    const press = async (name: string) => {
      await page.getByRole("button", { name, exact: true }).focus();
      await page.keyboard.press("Enter");
    };
    await page.getByLabel("Validation prompts", { exact: true }).fill("");
    await page.getByLabel("Steps", { exact: true }).fill("100000");
    await start("first");
    await state("first", "Running");
    await page.getByText("first trains now: this run starts when it has ended.").waitFor();
    await start("second");
    await runOf("second").getByText("1st in the queue").waitFor();

    await press("Pause first");
    await state("first", "Paused");
    await state("second", "Running");
    await press("Resume first");
    await state("first", "Queued");
    await press("Stop second");
    await state("second", "Stopped");
    await state("first", "Running");
    await press("Stop first");
    await state("first", "Stopped");

    await press("Remove second");
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await runOf("second").waitFor({ state: "detached" });
    await expect(readFile(join(root, "runs", "second", "run.json"))).rejects.toThrow();
  });

  it("says in words why a run failed", async () => {
    await page.getByLabel("Steps", { exact: true }).fill("3");
    await page.getByLabel("Validation prompts", { exact: true }).fill("a red circle, a blue square, and a red square");
    await start("failing");
    await state("failing", "Failed");
    expect(await runOf("failing").locator(".problem").innerText()).toMatch(/longer than the 8 tokens .* Shorten it\./);
  });

  it("has no error of its own", () => {
    expect(stage.errors).toEqual([]);
  });
});
