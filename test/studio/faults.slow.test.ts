// What goes wrong around the page: the server is gone and comes back, two pages steer one run, a run's metrics are damaged, the disk
// is full.

import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { appendFile, mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Page } from "playwright-core";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CHROMIUM } from "../support/chromium.js";
import { plainPng } from "../support/data-folder.js";
import { openStudioStage, runNamed, type StudioStage } from "../support/studio-stage.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

const run = promisify(execFile);

let stage: StudioStage;
let page: Page;
let hasFullDisk = false;
const fullDisk = (root: string) => join(root, "data", "full");

beforeAll(async () => {
  if (!CHROMIUM) return;
  stage = await openStudioStage(prepare);
  page = stage.page;
});

afterAll(async () => {
  if (hasFullDisk) await run("umount", [fullDisk(stage.root)]);
  await stage?.close();
});

async function prepare(root: string) {
  await writeTinyPipeline(join(root, "tiny"));
  await mkdir(join(root, "data", "dogs"), { recursive: true });
  for (let i = 0; i < 4; i++) await writeFile(join(root, "data", "dogs", `${i}.png`), await plainPng(i * 31));
  // A small disk, where this process may mount one.
  await mkdir(fullDisk(root));
  hasFullDisk = await run("mount", ["-t", "tmpfs", "-o", "size=100k", "tmpfs", fullDisk(root)]).then(
    () => true,
    () => false,
  );
  await writeFile(join(fullDisk(root), "a.png"), await plainPng());
  return { data: [join(root, "data")], models: [join(root, "tiny")] };
}

const settings = ({ root }: StudioStage) => ({
  ...{ model: join(root, "tiny"), data: [join(root, "data", "dogs")], rank: 2, batchSize: 1 },
});
const state = (where: Page, name: string, word: string) =>
  runNamed(where, name).getByText(word, { exact: true }).waitFor();

describe.skipIf(!CHROMIUM)("the page", () => {
  it("says that the server is gone, and shows what has become of a training when it is back", async () => {
    await page.getByRole("link", { name: "Watch", exact: true }).click();
    await stage.studio.api("runs", {
      name: "long",
      settings: { ...settings(stage), steps: 100_000, checkpointEvery: 5 },
    });
    await state(page, "long", "Running");
    const port = Number(new URL(stage.studio.origin).port);
    // Beside it there may be a notice of a request that failed meanwhile.
    const banner = page.locator(".banner", { hasText: "The server does not answer." });
    await stage.studio.stop("SIGTERM");
    await banner.waitFor();
    await stage.restart(port);
    await banner.waitFor({ state: "detached" });
    await state(page, "long", "Paused");
  });

  it("shows in every tab what one does, and says so where another came first", async () => {
    const other = await stage.openPage();
    await other.getByRole("link", { name: "Watch", exact: true }).click();
    await page.getByRole("button", { name: "Resume long", exact: true }).click();
    await state(other, "long", "Running");
    // Too late: the other page has paused it already when this one's request comes.
    await other.getByRole("button", { name: "Pause long", exact: true }).click();
    await state(page, "long", "Paused");
    await expect(stage.studio.api("run/action", { id: "long", action: "pause" })).rejects.toThrow(
      '"long" is paused by now, so there is nothing to pause.',
    );
    await other.close();
  });

  it("stays where a run's metrics are damaged, and shows the other runs", async () => {
    await appendFile(
      join(stage.root, "runs", "long", "metrics.jsonl"),
      '{"step":7,"loss":"<b>x</b>","gates":3}\n{"step":\n',
    );
    await page.goto(`${stage.studio.origin}/#/watch?run=long`);
    await page.reload();
    await state(page, "long", "Paused");
    await page.getByRole("link", { name: "Data", exact: true }).click();
    await page.getByRole("heading", { name: "Data", exact: true }).waitFor();
  });

  it("says that the disk is full, and leaves no half of an image", async ({ skip }) => {
    if (!hasFullDisk) skip("no disk may be mounted here");
    const side = 300;
    const noise = sharp(randomBytes(3 * side * side), { raw: { width: side, height: side, channels: 3 } });
    const folder = fullDisk(stage.root);
    const { added, refused, error } = await stage.studio.upload(folder, "large.png", await noise.png().toBuffer());
    expect(added ?? []).toEqual([]);
    expect(error ?? refused[0]!.reason).toMatch(/no space left|full/i);
    expect(await readdir(folder)).toEqual(["a.png"]);
  });

  it("has no error of its own", () => expect(stage.errors).toEqual([]));
});
