// What goes wrong around the page: the server is gone and comes back, two pages steer one run, a run's metrics are damaged, the disk
// is full.

import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { appendFile, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Browser, Page } from "playwright-core";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { AddedFiles } from "../../src/studio/protocol.js";
import { CHROMIUM, launchChromium } from "../support/chromium.js";
import { plainPng } from "../support/data-folder.js";
import { type StartedStudio, startStudio } from "../support/studio.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

const PATIENCE_MS = 60_000;
const run = promisify(execFile);

let root: string;
let studio: StartedStudio;
let browser: Browser;
let page: Page;
let hasFullDisk = false;
const errors: string[] = [];
const fullDisk = () => join(root, "data", "full");

const start = (port?: number) =>
  startStudio({ data: [join(root, "data")], runs: join(root, "runs"), models: [join(root, "tiny")], port });

async function openPage(): Promise<Page> {
  const opened = await studio.openStudio(browser);
  opened.setDefaultTimeout(PATIENCE_MS);
  opened.on("pageerror", (error) => errors.push(String(error)));
  return opened;
}

beforeAll(async () => {
  if (!CHROMIUM) return;
  root = await mkdtemp(join(tmpdir(), "fera-studio-faults-"));
  await writeTinyPipeline(join(root, "tiny"));
  await mkdir(join(root, "data", "dogs"), { recursive: true });
  for (let i = 0; i < 4; i++) await writeFile(join(root, "data", "dogs", `${i}.png`), await plainPng(i * 31));
  // A small disk, where this process may mount one.
  await mkdir(fullDisk());
  hasFullDisk = await run("mount", ["-t", "tmpfs", "-o", "size=100k", "tmpfs", fullDisk()]).then(
    () => true,
    () => false,
  );
  await writeFile(join(fullDisk(), "a.png"), await plainPng());
  [studio, browser] = await Promise.all([start(), launchChromium()]);
  page = await openPage();
});

afterAll(async () => {
  if (!CHROMIUM) return;
  await browser?.close();
  await studio?.stop();
  if (hasFullDisk) await run("umount", [fullDisk()]);
  await rm(root, { recursive: true, force: true, maxRetries: 5 });
});

const settings = () => ({ model: join(root, "tiny"), data: [join(root, "data", "dogs")], rank: 2, batchSize: 1 });
const runNamed = (where: Page, name: string) =>
  where.locator(".run", { has: where.getByRole("link", { name, exact: true }) });
const state = (where: Page, name: string, word: string) =>
  runNamed(where, name).getByText(word, { exact: true }).waitFor();

describe.skipIf(!CHROMIUM)("the page", () => {
  it("says that the server is gone, and shows what has become of a training when it is back", async () => {
    await page.getByRole("link", { name: "Watch", exact: true }).click();
    await studio.api("runs", { name: "long", settings: { ...settings(), steps: 100_000, checkpointEvery: 5 } });
    await state(page, "long", "Running");
    const port = Number(new URL(studio.origin).port);
    await studio.stop("SIGTERM");
    await page
      .getByRole("alert")
      .getByText(/The server does not answer/)
      .waitFor();
    studio = await start(port);
    await page
      .getByRole("alert")
      .getByText(/The server does not answer/)
      .waitFor({ state: "detached" });
    await state(page, "long", "Paused");
  });

  it("shows in every tab what one does, and says so where another came first", async () => {
    const other = await openPage();
    await other.getByRole("link", { name: "Watch", exact: true }).click();
    await page.getByRole("button", { name: "Resume long", exact: true }).click();
    await state(other, "long", "Running");
    // Too late: the other page has paused it already when this one's request comes.
    await other.getByRole("button", { name: "Pause long", exact: true }).click();
    await state(page, "long", "Paused");
    await expect(studio.api("run/action", { id: "long", action: "pause" })).rejects.toThrow(
      '"long" is paused by now, so there is nothing to pause.',
    );
    await other.close();
  });

  it("stays where a run's metrics are damaged, and shows the other runs", async () => {
    await appendFile(join(root, "runs", "long", "metrics.jsonl"), '{"step":7,"loss":"<b>x</b>","gates":3}\n{"step":\n');
    await page.goto(`${studio.origin}/#/watch?run=long`);
    await page.reload();
    await state(page, "long", "Paused");
    await page.getByRole("link", { name: "Data", exact: true }).click();
    await page.getByRole("heading", { name: "Data", exact: true }).waitFor();
  });

  it("says that the disk is full, and leaves no half of an image", async ({ skip }) => {
    if (!hasFullDisk) skip("no disk may be mounted here");
    const side = 300;
    const noise = sharp(randomBytes(3 * side * side), { raw: { width: side, height: side, channels: 3 } });
    const query = new URLSearchParams({ id: fullDisk(), name: "large.png" });
    const answer = await fetch(`${studio.origin}/api/dataset/files?${query}`, {
      method: "POST",
      headers: { Authorization: `Bearer ${studio.token}` },
      body: new Uint8Array(await noise.png().toBuffer()),
    });
    const { added, refused, error } = (await answer.json()) as AddedFiles & { error?: string };
    expect(added ?? []).toEqual([]);
    expect(error ?? refused[0]!.reason).toMatch(/no space left|full/i);
    expect(await readdir(fullDisk())).toEqual(["a.png"]);
  });

  it("has no error of its own", () => expect(errors).toEqual([]));
});
