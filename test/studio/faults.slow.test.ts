// What goes wrong around the page: the server is gone and comes back, two pages steer one run, a run's metrics are damaged, the disk
// is full.

import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { appendFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
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

  it("says that the connection is cut, and catches up when it is back", async () => {
    const visitor = await stage.openPage();
    const card = (name: string) => visitor.locator(`.card[data-name="${name}"]`);
    const showsPicture = (name: string) =>
      expect
        .poll(() => card(name).evaluate((element) => (element.querySelector("img")?.naturalWidth ?? 0) > 0))
        .toBe(true);
    await card("0.png").waitFor();
    await visitor.context().setOffline(true);
    await card("0.png").getByRole("textbox").fill("written on a train");
    await visitor.keyboard.press("Control+Enter");
    await card("0.png").getByText("could not be saved").waitFor();
    await visitor.locator(".banner", { hasText: "The server does not answer." }).waitFor();
    await card("1.png").getByRole("button", { name: "Look at 1.png" }).click();
    await visitor.getByRole("dialog").getByText("This picture cannot be shown.").waitFor();
    await visitor.getByRole("dialog").getByRole("button", { name: "Close" }).click();
    await visitor.getByRole("link", { name: "Train", exact: true }).click();
    await visitor.getByText("Asking for the options…").waitFor();

    await visitor.context().setOffline(false);
    await visitor.locator(".banner").waitFor({ state: "detached" });
    await visitor.getByLabel("Steps", { exact: true }).waitFor();
    await expect
      .poll(() => readFile(join(stage.root, "data", "dogs", "0.txt"), "utf8").catch(() => ""))
      .toBe("written on a train\n");
    await visitor.locator(".notice", { hasText: "does not answer" }).waitFor({ state: "detached" });
    await visitor.getByRole("link", { name: "Data", exact: true }).click();
    for (const name of ["0.png", "1.png"]) await showsPicture(name);
    await visitor.context().close();
  });

  it("is in more tabs than a browser has connections, and the events go on when the first is closed", async () => {
    const first = await stage.openPage();
    const others = [];
    for (let i = 0; i < 7; i++) others.push(await stage.openPage(first));
    const last = others.at(-1)!;
    const badge = (image: string) => last.locator(`.card[data-name="${image}"] textarea`);
    for (const tab of [first, ...others]) await tab.locator(".card").first().waitFor();
    const caption = async (image: string, text: string) => {
      const id = join(stage.root, "data", "dogs");
      await stage.studio.api("dataset/caption", { id, image, caption: text });
      await expect.poll(() => badge(image).inputValue(), { timeout: 10_000 }).toBe(text);
    };
    await caption("2.png", "told by the first");
    await first.close();
    await caption("2.png", "told by the next");
    // The others find a server that comes back, as the one that listens does.
    const port = Number(new URL(stage.studio.origin).port);
    await stage.studio.stop("SIGTERM");
    await last.locator(".banner").waitFor();
    await stage.restart(port);
    await last.locator(".banner").waitFor({ state: "detached" });
    await caption("2.png", "told by another server");
    await last.context().close();
  });

  it("tells what was typed for an image that another tab has removed", async () => {
    const [one, other] = [await stage.openPage(), await stage.openPage()];
    const card = (tab: Page) => tab.locator('.card[data-name="3.png"]');
    await card(one).getByRole("textbox").fill("too late");
    await card(other).getByRole("button", { name: "Remove 3.png" }).click();
    await other.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await card(one).waitFor({ state: "detached" });
    await one.getByText("3.png is in its data set no more. What you typed for it was not saved: too late").waitFor();
    expect(await one.locator(".unsaved").count()).toBe(0);
    for (const tab of [one, other]) await tab.context().close();
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
