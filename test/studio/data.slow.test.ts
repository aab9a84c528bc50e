// The view of data sets, by clicking, dropping and by keyboard, with the real server.

import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Page } from "playwright-core";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CHROMIUM } from "../support/chromium.js";
import { plainPng } from "../support/data-folder.js";
import { openStudioStage, type StudioStage } from "../support/studio-stage.js";

const HOSTILE = '<img src=x onerror="window.hacked=1">';
/** A name that most file systems take. */
const HOSTILE_NAME = "<b onmouseover=hack()>&amp;'.png";

let stage: StudioStage;
let root: string;
let page: Page;

beforeAll(async () => {
  if (!CHROMIUM) return;
  stage = await openStudioStage(prepare);
  ({ root, page } = stage);
});

afterAll(() => stage?.close());

async function prepare(root: string) {
  const dogs = join(root, "data", "dogs");
  await mkdir(dogs, { recursive: true });
  const wide = sharp({ create: { width: 400, height: 200, channels: 3, background: "red" } });
  await writeFile(join(dogs, "wide.png"), await wide.png().toBuffer());
  await writeFile(join(dogs, "wide.txt"), "a wide dog");
  await writeFile(join(dogs, HOSTILE_NAME), await plainPng(3));
  await writeFile(join(dogs, `${HOSTILE_NAME.slice(0, -4)}.txt`), HOSTILE);
  await writeFile(join(dogs, "small.png"), await plainPng(1));
  const many = join(root, "data", "many");
  await mkdir(many);
  for (let i = 0; i < 300; i++) await writeFile(join(many, `img-${i}.png`), await plainPng(i));
  return { data: [join(root, "data")] };
}

const card = (name: string) => page.locator(`.card[data-name=${JSON.stringify(name)}]`);
const captionOf = (name: string) => card(name).getByRole("textbox");
const held = (...path: string[]) => readFile(join(root, "data", ...path), "utf8");
const chooseSet = (label: RegExp) =>
  page.getByRole("combobox", { name: "Data set" }).evaluate((select: HTMLSelectElement, pattern) => {
    select.value = [...select.options].find(({ text }) => new RegExp(pattern).test(text))!.value;
    select.dispatchEvent(new Event("change", { bubbles: true }));
  }, label.source);

/** The part of wide.png that is trained on, in shares of its picture. */
async function cropShares() {
  const [picture, crop] = await Promise.all([
    card("wide.png").locator(".picture").boundingBox(),
    card("wide.png").locator(".crop").boundingBox(),
  ]);
  return { left: (crop!.x - picture!.x) / picture!.width, width: crop!.width / picture!.width };
}

/** Drops files on the page, as a person does from another window. */
async function drop(files: Record<string, Uint8Array | string>): Promise<void> {
  const contents = Object.entries(files).map(
    ([name, content]) => [name, Buffer.from(content).toString("base64")] as const,
  );
  const transfer = await page.evaluateHandle((all) => {
    const data = new DataTransfer();
    for (const [name, base64] of all)
      data.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], name));
    return data;
  }, contents);
  await page.dispatchEvent("main", "dragover", { dataTransfer: transfer });
  await page.getByText("Drop the files to add them").waitFor();
  await page.dispatchEvent("main", "drop", { dataTransfer: transfer });
}

describe.skipIf(!CHROMIUM)("the data view", () => {
  it("shows names and captions as text, whatever they are made of", async () => {
    await chooseSet(/^dogs/);
    await card(HOSTILE_NAME).waitFor();
    expect(await captionOf(HOSTILE_NAME).inputValue()).toBe(HOSTILE);
    expect(await card(HOSTILE_NAME).locator(".name").innerText()).toBe(HOSTILE_NAME);
    await card(HOSTILE_NAME)
      .getByRole("button", { name: /^Look at/ })
      .click();
    expect(await page.getByRole("dialog").getByRole("heading").innerText()).toBe(HOSTILE_NAME);
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    expect(await page.evaluate(() => "hacked" in window)).toBe(false);
  });

  it("saves a caption beside its image on Ctrl+Enter and on leaving it, and takes it back with Escape", async () => {
    await captionOf("wide.png").fill("a very wide dog");
    await page.keyboard.press("Control+Enter");
    await expect.poll(() => held("dogs", "wide.txt")).toBe("a very wide dog\n");
    await captionOf("wide.png").fill("never mind");
    await page.keyboard.press("Escape");
    expect(await captionOf("wide.png").inputValue()).toBe("a very wide dog");
    await captionOf("small.png").fill("a small dog");
    await page.keyboard.press("Tab");
    await expect.poll(() => held("dogs", "small.txt").catch(() => "")).toBe("a small dog\n");
    // Its warning goes with the reason for it.
    await card("small.png").locator(".badge", { hasText: "no caption" }).waitFor({ state: "detached" });
  });

  it("keeps what was typed when it cannot be saved, and saves it later", async () => {
    await page.route("**/api/dataset/caption", (route) => route.abort());
    await captionOf("small.png").fill("typed in vain");
    await page.keyboard.press("Control+Enter");
    await card("small.png").getByText("could not be saved").waitFor();
    await page.getByRole("link", { name: "Train", exact: true }).click();
    await page.getByRole("link", { name: "Data", exact: true }).click();
    expect(await captionOf("small.png").inputValue()).toBe("typed in vain");
    await page.unroute("**/api/dataset/caption");
    await page.getByRole("button", { name: "Try again" }).click();
    await expect.poll(() => held("dogs", "small.txt")).toBe("typed in vain\n");
    await page.getByRole("button", { name: "Try again" }).waitFor({ state: "detached" });
  });

  it("warns, and finds images by their warnings and words", async () => {
    await card("wide.png").locator(".badge", { hasText: "cut" }).waitFor();
    expect(await card("wide.png").locator(".badge").first().getAttribute("title")).toBe("50 % of it are cut off.");
    await page.getByRole("combobox", { name: "Show" }).selectOption("cut");
    await page.getByText("1 of 3 images").waitFor();
    expect(await page.locator(".card").count()).toBe(1);
    await page.getByRole("combobox", { name: "Show" }).selectOption("all");
    await page.getByPlaceholder("Search names and captions").fill("VAIN");
    await page.getByText("1 of 3 images").waitFor();
    await page.getByPlaceholder("Search names and captions").fill("");
    await page.getByText("3 images", { exact: true }).waitFor();
  });

  it("draws the part that is trained on over the original, and all of it in its bucket", async () => {
    await page.getByRole("button", { name: "Show the crop of wide.png" }).click();
    const { left, width } = await cropShares();
    expect(left).toBeCloseTo(0.25, 1);
    expect(width).toBeCloseTo(0.5, 1);
    await page.getByLabel("Each at the shape nearest to its own (buckets)").check();
    await expect.poll(async () => (await cropShares()).width).toBeCloseTo(1, 1);
  });

  it("keeps a resolution that is being typed while the set is read anew", async () => {
    let release = () => {};
    const isTyped = new Promise<void>((resolve) => {
      release = resolve;
    });
    await page.route("**/api/dataset?*", async (route) => {
      await isTyped;
      await route.continue();
    });
    await page.getByLabel("Each at the shape nearest to its own (buckets)").uncheck();
    await page.getByLabel("Resolution in pixels").fill("64");
    release();
    await expect.poll(async () => (await cropShares()).width).toBeCloseTo(0.5, 1);
    await page.unroute("**/api/dataset?*");
    await page.keyboard.press("Tab");
    const sizes = page.getByRole("table", { name: "Images by the size that they are trained at" });
    await sizes.getByRole("rowheader", { name: "64×64" }).waitFor();
  });

  it("goes through the images large, by arrow keys, and edits captions there", async () => {
    await card("small.png").getByRole("button", { name: "Look at small.png" }).focus();
    await page.keyboard.press("Enter");
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("heading", { name: "small.png" }).waitFor();
    await page.keyboard.press("ArrowRight");
    await dialog.getByRole("heading", { name: "wide.png" }).waitFor();
    await dialog.getByRole("textbox").fill("from the dialog");
    await page.keyboard.press("PageUp");
    await dialog.getByRole("heading", { name: "small.png" }).waitFor();
    await expect.poll(() => held("dogs", "wide.txt")).toBe("from the dialog\n");
    await dialog.getByRole("textbox").fill("to be taken back");
    await page.keyboard.press("Escape");
    expect(await dialog.getByRole("textbox").inputValue()).toBe("typed in vain");
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "detached" });
  });

  it("puts words before all captions that are shown, and shows before what would change", async () => {
    await page.getByPlaceholder("Search names and captions").fill(".png dialog");
    await page.getByRole("button", { name: "Change many captions…" }).click();
    await page.getByLabel("Words", { exact: true }).fill("sks");
    await page.getByRole("dialog").getByText("sks, from the dialog").waitFor();
    await page.getByRole("button", { name: "Change 1 caption" }).click();
    await expect.poll(() => held("dogs", "wide.txt")).toBe("sks, from the dialog\n");
    expect(await held("dogs", "small.txt")).toBe("typed in vain\n");
    await page.getByPlaceholder("Search names and captions").fill("");
  });

  it("adds dropped files to the set or a new one, and refuses a broken image with the reason", async () => {
    await drop({ "new.png": await plainPng(77), "new.txt": "a new dog", "broken.png": "no image", "x.exe": "MZ" });
    await page.getByRole("radio", { name: "To dogs" }).check();
    await page.getByRole("button", { name: "Add", exact: true }).click();
    await page.getByText("2 files added to dogs, 2 refused.").waitFor();
    await card("new.png").waitFor();
    expect(await captionOf("new.png").inputValue()).toBe("a new dog");
    const refused = page.getByRole("list", { name: "Refused files" });
    expect(await refused.getByRole("listitem").filter({ hasText: "broken.png" }).innerText()).toMatch(
      /broken\.png: .{10}/,
    );
    expect(await refused.getByRole("listitem").filter({ hasText: "x.exe" }).innerText()).toContain(
      "no image that is read",
    );
    expect(await readdir(join(root, "data", "dogs"))).not.toContain("broken.png");

    await page.getByLabel("Files to add").setInputFiles([
      { name: "a.png", mimeType: "image/png", buffer: await plainPng(5) },
      { name: "a.txt", mimeType: "text/plain", buffer: Buffer.from("a cat") },
    ]);
    await page.getByRole("radio", { name: "To a new data set" }).check();
    await page.getByLabel("Its name").fill("cats & co");
    await page.keyboard.press("Enter");
    await card("a.png").waitFor();
    expect(await held("cats & co", "a.txt")).toBe("a cat");
    expect(new URL(page.url()).hash).toContain("cats");
  });

  it("takes a folder that is dragged in, subfolders too, and refuses hostile pictures of it with the rule", async () => {
    const folder = join(root, "dragged");
    await mkdir(join(folder, "more"), { recursive: true });
    const wide = sharp({ create: { width: 1200, height: 1, channels: 3, background: "red" } });
    await writeFile(join(folder, "line.png"), await wide.png().toBuffer());
    const svg = (size: string, content = "") => `<svg xmlns="http://www.w3.org/2000/svg" ${size}>${content}</svg>`;
    await writeFile(join(folder, "huge.svg"), svg('width="30000" height="30000"'));
    const script = '<script>window.hacked = 1</script><rect width="9" height="9" fill="red"/>';
    await writeFile(join(folder, "script.svg"), svg('width="9" height="9"', script));
    const photo = await sharp(await plainPng(8))
      .resize(400)
      .jpeg()
      .toBuffer();
    await writeFile(join(folder, "cut.jpg"), photo.subarray(0, photo.length / 2));
    // A JPEG by another name, and one as printers have them.
    await writeFile(
      join(folder, "jpeg.png"),
      await sharp(await plainPng(9))
        .jpeg()
        .toBuffer(),
    );
    const cmyk = sharp(await plainPng(10)).toColourspace("cmyk");
    await writeFile(join(folder, "more", "cmyk.jpg"), await cmyk.jpeg().toBuffer());

    const session = await page.context().newCDPSession(page);
    const data = { items: [], files: [folder], dragOperationsMask: 1 };
    for (const type of ["dragEnter", "dragOver", "drop"] as const) {
      await session.send("Input.dispatchDragEvent", { type, x: 700, y: 400, data });
      if (type === "dragOver") await page.getByText("Drop the files to add them").waitFor();
    }
    expect(await page.getByLabel("Its name").inputValue()).toBe("dragged");
    await page.getByRole("button", { name: "Add", exact: true }).click();
    await page.getByText("3 files added to dragged, 3 refused.").waitFor();
    expect((await readdir(join(root, "data", "dragged"))).sort()).toEqual(["cmyk.jpg", "jpeg.png", "script.svg"]);
    const refused = (await page.getByRole("list", { name: "Refused files" }).innerText()).split("\n");
    expect(refused).toContain("huge.svg: It has more pixels than are read, 268 million. Make it smaller.");
    expect(refused).toContain(
      "line.png: It has 1200×1 pixels: one side is more than 1000 times the other. Cut a part out of it.",
    );
    expect(refused).toContainEqual(expect.stringMatching(/^cut\.jpg: It is no readable image: /));
    for (const name of ["cmyk.jpg", "jpeg.png", "script.svg"]) {
      const width = () => card(name).evaluate((element) => element.querySelector("img")?.naturalWidth ?? 0);
      await expect.poll(width).toBeGreaterThan(0);
    }
    expect(await page.evaluate(() => "hacked" in window)).toBe(false);
    await chooseSet(/^cats/);
  });

  it("takes a drawing into the set, with its caption", async () => {
    await page.getByRole("button", { name: "Draw…" }).click();
    const pad = (await page.locator("canvas").boundingBox())!;
    await page.getByRole("radio", { name: "red" }).check();
    await page.mouse.move(pad.x + pad.width / 2, pad.y + pad.height / 2);
    await page.mouse.down();
    await page.mouse.move(pad.x + pad.width / 2 + 5, pad.y + pad.height / 2, { steps: 3 });
    await page.mouse.up();
    await page.getByLabel("Caption", { exact: true }).fill("a red dot");
    await page.getByRole("button", { name: "Add to cats & co" }).click();
    await page.getByText("Added to cats & co.").waitFor();
    await page.getByRole("button", { name: "Close" }).click();
    const name = (await readdir(join(root, "data", "cats & co"))).find((file) => /^drawing-\d+\.png$/.test(file))!;
    await expect.poll(() => captionOf(name).inputValue()).toBe("a red dot");
    const drawn = await sharp(join(root, "data", "cats & co", name))
      .raw()
      .toBuffer({ resolveWithObject: true });
    const { width, height, channels } = drawn.info;
    const pixel = (x: number, y: number) => [...drawn.data.subarray((y * width + x) * channels).subarray(0, 3)];
    expect(pixel(width / 2, height / 2)).toEqual([0xd7, 0x26, 0x3d]);
    expect(pixel(2, 2)).toEqual([255, 255, 255]);
  });

  it("removes an image after asking", async () => {
    await card("a.png").getByRole("button", { name: "Remove a.png" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
    expect(await card("a.png").count()).toBe(1);
    await card("a.png").getByRole("button", { name: "Remove a.png" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await card("a.png").waitFor({ state: "detached" });
    expect(await readdir(join(root, "data", "cats & co"))).not.toContain("a.png");
  });

  it("has only the cards near the window in the page, and reaches all of them", async () => {
    await chooseSet(/^many/);
    await card("img-0.png").waitFor();
    expect(await page.locator(".card").count()).toBeLessThan(60);
    expect(await card("img-0.png").getAttribute("aria-setsize")).toBe("300");
    await captionOf("img-0.png").fill("not lost");
    await page.evaluate(() => scrollTo(0, document.body.scrollHeight));
    await card("img-299.png").waitFor();
    expect(await page.locator(".card").count()).toBeLessThan(60);
    // What has the focus is still there.
    expect(await captionOf("img-0.png").inputValue()).toBe("not lost");
    await captionOf("img-299.png").focus();
    await expect.poll(() => held("many", "img-0.txt").catch(() => "")).toBe("not lost\n");
  });

  it("has no error of its own", () => {
    expect(stage.errors).toEqual([]);
  });
});
