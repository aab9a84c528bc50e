import { mkdtemp, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { plainPng, writeFolder } from "../../../test/support/data-folder.js";
import { ConfigError, FormatError, ShapeError } from "../../errors.js";
import { openDataset } from "./dataset.js";
import { loadIconSet } from "./icons.js";
import { openImageFolder } from "./image-folder.js";

let root: string;

beforeAll(async () => {
  root = await mkdtemp(path.join(tmpdir(), "fera-folder-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

/** A picture of a noto icon on green, wider than high. */
function picture(name: string) {
  return sharp(Buffer.from(loadIconSet("noto").svg(name, 64)))
    .resize(96, 64, { fit: "contain", background: "#00ff00" })
    .flatten({ background: "#00ff00" });
}

const folder = (files: Record<string, string | Uint8Array>) => writeFolder(root, files);

describe("openImageFolder", () => {
  it("reads PNG, JPEG, WebP and SVG, also in subfolders, in a fixed order", async () => {
    const dir = await folder({
      "d.PNG": await picture("cat").png().toBuffer(),
      "b.jpg": await picture("dog").jpeg().toBuffer(),
      "sub/a.webp": await picture("rocket").webp().toBuffer(),
      "c.svg": loadIconSet("noto").svg("sushi"),
      "notes.md": "no image",
      "._d.png": "what macOS leaves behind",
    });
    const { images, skipped } = await openImageFolder(dir);
    expect(images.map((image) => image.path)).toEqual(["b.jpg", "c.svg", "d.PNG", "sub/a.webp"]);
    expect(skipped).toEqual([]);
    const dataset = await openDataset(dir, { size: 32, validationSplit: 0 });
    for (let i = 0; i < images.length; i++) {
      const pixels = await dataset.image(i);
      expect(pixels).toHaveLength(3 * 32 * 32);
      for (const value of pixels) expect(Math.abs(value)).toBeLessThanOrEqual(1);
    }
    await expect(dataset.image(4)).rejects.toThrow(ShapeError);
  });

  it("crops the centre instead of squeezing", async () => {
    // Red in the middle 64 of 96 columns, green at the sides.
    const bytes = await sharp({ create: { width: 96, height: 64, channels: 3, background: "#00ff00" } })
      .composite([
        { input: { create: { width: 64, height: 64, channels: 3, background: "#ff0000" } }, left: 16, top: 0 },
      ])
      .png()
      .toBuffer();
    const { image } = await openDataset(await folder({ "a.png": bytes }), { size: 64 });
    const pixels = await image(0);
    expect(pixels.subarray(0, 64 * 64).every((red) => red === 1)).toBe(true);
    expect(pixels.subarray(64 * 64).every((other) => other === -1)).toBe(true);
  });

  it("puts transparent images on white", async () => {
    const bytes = await sharp({ create: { width: 8, height: 8, channels: 4, background: "#00000000" } })
      .png()
      .toBuffer();
    const { image } = await openDataset(await folder({ "a.png": bytes }), { size: 8 });
    expect((await image(0)).every((value) => value === 1)).toBe(true);
  });

  it("takes captions from a text file, else from metadata.jsonl, else from the file name", async () => {
    const png = await picture("cat").png().toBuffer();
    const rows = [
      { file_name: "b.png", text: "from metadata" },
      { file_name: "a.png", text: "not this" },
      { file_name: "sub/d.png", text: "by path" },
      { file_name: "gone.png", text: "lost" },
    ];
    const dir = await folder({
      "a.png": png,
      "a.txt": "\uFEFFfrom the text file \n",
      "b.png": png,
      "cat_with-wry  smile.png": png,
      "e.png": png,
      "e.txt": "",
      "sub/d.png": png,
      "metadata.jsonl": `${rows.map((row) => JSON.stringify(row)).join("\r\n")}\r\n`,
    });
    const { images, skipped } = await openImageFolder(dir);
    expect(Object.fromEntries(images.map((image) => [image.path, image.caption]))).toEqual({
      "a.png": "from the text file",
      "b.png": "from metadata",
      "cat_with-wry  smile.png": "cat with wry smile",
      "e.png": "",
      "sub/d.png": "by path",
    });
    expect(images.map((image) => image.captionSource)).toEqual([
      ...["textFile", "metadata", "fileName", "textFile", "metadata"],
    ]);
    expect(skipped).toEqual([
      { path: "metadata.jsonl", reason: "line 2 is not used: a.png has a caption file that says something else" },
      { path: "gone.png", reason: "metadata.jsonl names it, but there is no such image" },
    ]);
  });

  it("skips damaged and unsupported images and says why", async () => {
    const png = await sharp({
      create: {
        width: 64,
        height: 64,
        channels: 3,
        background: "red",
        noise: { type: "gaussian", mean: 128, sigma: 40 },
      },
    })
      .png()
      .toBuffer();
    const dir = await folder({
      "good.png": png,
      "cut.png": png,
      "text.jpg": "this is no image",
      "empty.webp": "",
      "anim.gif": "GIF89a",
    });
    await truncate(path.join(dir, "cut.png"), Math.floor(png.length / 2));
    const { images, skipped } = await openImageFolder(dir);
    expect(images.map((image) => image.path)).toEqual(["good.png"]);
    expect(skipped.map((one) => one.path).sort()).toEqual(["anim.gif", "cut.png", "empty.webp", "text.jpg"]);
    for (const { reason } of skipped) expect(reason).toMatch(/is no readable image|are not read/);
  });

  it("reads .jfif, endings in capitals, captions in .caption and .TXT", async () => {
    const jpeg = await picture("cat").jpeg().toBuffer();
    const dir = await folder({
      "a.jfif": jpeg,
      "a.caption": "a cat",
      "b.JPE": jpeg,
      "b.TXT": "a dog",
      "c.jpg": jpeg,
      "c.txt": "of two the text file",
      "c.caption": "is read",
    });
    const { images, skipped } = await openImageFolder(dir);
    expect(images.map(({ path, caption }) => [path, caption])).toEqual([
      ["a.jfif", "a cat"],
      ["b.JPE", "a dog"],
      ["c.jpg", "of two the text file"],
    ]);
    expect(skipped).toEqual([{ path: "c.caption", reason: "is not read: c.txt beside it is" }]);
    const other = await openImageFolder(dir, { captionExtension: ".caption" });
    expect(other.images.map(({ caption }) => caption)).toEqual(["a cat", "b", "is read"]);
    expect(other.skipped.map(({ path }) => path).sort()).toEqual(["b.TXT", "c.txt"]);
    await expect(openImageFolder(dir, { captionExtension: "txt" })).rejects.toThrow(/an ending such as \.txt/);
  });

  it("gives images without a caption the instance prompt, where there is one", async () => {
    const png = await plainPng();
    const dir = await folder({ "00.png": png, "01.png": png, "01.txt": "" });
    const { images } = await openImageFolder(dir, { instancePrompt: "photo of sks dog" });
    expect(images.map(({ caption, captionSource }) => [caption, captionSource])).toEqual([
      ["photo of sks dog", "instancePrompt"],
      ["", "textFile"],
    ]);
  });

  it("says what of a folder is not used: other files, captions without an image, lines that are overruled", async () => {
    const png = await plainPng();
    const line = (name: string, text: string) => JSON.stringify({ file_name: name, text });
    const dir = await folder({
      "a.png": png,
      "latents.npz": "x",
      "old.txt": "a caption whose image is gone",
      "README.txt": "about",
      LICENSE: "free",
      "metadata.jsonl": [line("a.png", "first"), line("./a.png", "second"), line("sub/b.png", "from above")].join("\n"),
      "metadata.csv": "file_name,text\na.png,third",
      "sub/b.png": png,
      "sub/metadata.csv": 'file_name,text\nb.png,"from, ""below"""\n',
      "sub/metadata.parquet": "PAR1",
    });
    const { images, skipped } = await openImageFolder(dir);
    expect(images.map(({ caption }) => caption)).toEqual(["second", 'from, "below"']);
    expect(skipped).toEqual([
      { path: "latents.npz", reason: ".npz files are not read" },
      { path: "metadata.csv", reason: "is not read: metadata.jsonl beside it is" },
      { path: "old.txt", reason: "is no caption: there is no image of that name" },
      {
        path: "sub/metadata.parquet",
        reason: "is not read, because there are images; name it as data by itself",
      },
      { path: "metadata.jsonl", reason: "line 1 is not used: line 2 names a.png again" },
      { path: "metadata.jsonl", reason: "line 3 is not used: sub/metadata.csv names it, too" },
    ]);
  });

  it("names every caption that cannot be used at once: not UTF-8, too large, a link out of the folder", async () => {
    const outside = await folder({ "secret.txt": "the user's own" });
    const png = await plainPng();
    const names = ["latin", "large", "linked", "dangling", "good"];
    const dir = await folder({
      ...Object.fromEntries(names.map((name) => [`${name}.png`, png])),
      "latin.txt": Uint8Array.from([0x46, 0xfc, 0xdf, 0x65]),
      "large.txt": "x".repeat(10_000_000),
      "good.txt": "fine",
    });
    await symlink(path.join(outside, "secret.txt"), path.join(dir, "linked.txt"));
    await symlink("nowhere", path.join(dir, "dangling.txt"));
    const { message } = (await openImageFolder(dir).catch((error: FormatError) => error as Error)) as Error;
    expect(message).toContain("4 files of captions cannot be used");
    expect(message).toMatch(/latin\.txt is not valid UTF-8\. Save it as UTF-8/);
    expect(message).toMatch(/large\.txt has 10000000 bytes; at most 65536/);
    expect(message).toMatch(/linked\.txt is a link out of the data folder/);
    expect(message).toMatch(/dangling\.txt is a link that leads nowhere/);
    expect(message).not.toContain("the user's own");
    expect(message.length).toBeLessThan(1000);
  });

  it("follows links inside the folder, and says which it does not follow", async () => {
    const png = await plainPng();
    const outside = await folder({ "private.png": png, "more/photo.png": png });
    const dir = await folder({ "sub/a.png": png, "z/b.png": png });
    const link = (target: string, name: string) => symlink(target, path.join(dir, name));
    await link(path.join(dir, "sub", "a.png"), "link.png");
    await link("z", "again");
    await link("..", "sub/circle");
    await link("a-loop.png", "a-loop.png");
    await link(path.join(dir, "nowhere.png"), "broken.png");
    await link(path.join(outside, "private.png"), "private.png");
    await link(path.join(outside, "more"), "more");
    const { images, skipped } = await openImageFolder(dir);
    expect(images.map((image) => image.path)).toEqual(["link.png", "sub/a.png", "z/b.png"]);
    const out = "is a link out of the data folder, which is not followed unless asked for (followLinks)";
    expect(Object.fromEntries(skipped.map(({ path, reason }) => [path, reason]))).toEqual({
      "a-loop.png": "is a link that leads in a circle",
      again: "is a link to z, which is read already",
      "broken.png": "is a link that leads nowhere",
      more: out,
      "private.png": out,
      "sub/circle": "is a link to the data folder, which is read already",
    });
    const all = await openImageFolder(dir, { followLinks: true });
    expect(all.images.map((image) => image.path)).toEqual([
      ...["link.png", "private.png", "sub/a.png", "z/b.png", "more/photo.png"],
    ]);
  });

  it("reads a data set in a hub's cache, whose files are links to blobs beside it", async () => {
    const cache = await folder({ "blobs/1": await plainPng(), "blobs/2": "a cat", "snapshots/main/README.md": "" });
    const dir = path.join(cache, "snapshots", "main");
    await symlink("../../blobs/1", path.join(dir, "a.png"));
    await symlink("../../blobs/2", path.join(dir, "a.txt"));
    const { images, skipped } = await openImageFolder(dir);
    expect(images.map(({ caption }) => caption)).toEqual(["a cat"]);
    expect(skipped).toEqual([]);
  });

  it("leaves out folders as asked, and what another training wrote", async () => {
    const png = await plainPng();
    const dir = await folder({
      "a.png": png,
      "out/validation/step-000001.png": png,
      "old/metrics.jsonl": "",
      "old/loss.png": png,
    });
    const { images, skipped } = await openImageFolder(dir, { exclude: [path.join(dir, "sub", "..", "out")] });
    expect(images.map((image) => image.path)).toEqual(["a.png"]);
    expect(skipped).toEqual([
      { path: "old", reason: expect.stringContaining("the output of a training") },
      { path: "out", reason: expect.stringContaining("results are written there") },
    ]);
    await symlink(dir, path.join(root, "same"));
    const itself = openImageFolder(path.join(root, "same"), { exclude: [dir, path.join(dir, "missing")] });
    await expect(itself).rejects.toThrow(ConfigError);
  });

  it.skipIf(process.platform === "win32")("takes names with control characters, and prints none of them", async () => {
    const evil = "a\u001b]0;owned\u0007\n\u009b2J";
    const dir = await folder({ "b.png": await plainPng(), [`${evil}.png`]: "x", [`${evil}.txt`]: "y" });
    const { skipped } = await openImageFolder(dir);
    expect(skipped).toEqual([{ path: `${evil}.png`, reason: expect.stringMatching(/^is no readable image/) }]);
    await writeFile(path.join(dir, `${evil}.txt`), Uint8Array.from([0xff]));
    const refused = await openImageFolder(dir).catch((error: Error) => error.message);
    expect(refused).toContain("a\\u{1b}]0;owned\\u{7}\\u{a}\\u{9b}2J.txt is not valid UTF-8");
    await rm(path.join(dir, `${evil}.txt`));
    await rm(path.join(dir, "b.png"));
    expect(await openImageFolder(dir).catch((error: Error) => error.message)).not.toMatch(/\p{Cc}/u);
  });

  it("tells how far it is, gives every file's hash, and ends when asked to", async () => {
    const [first, second] = [await plainPng(1), await plainPng(2)];
    const dir = await folder({ "a.png": first, "b.png": second, "c.png": first, "d.png": "x" });
    const seen: string[] = [];
    const onProgress = (done: number, total: number) => seen.push(`${done}/${total}`);
    const { images } = await openImageFolder(dir, { onProgress });
    expect(seen).toEqual(["1/4", "2/4", "3/4", "4/4"]);
    const [a, b, c] = images.map(({ contentHash }) => contentHash);
    expect(a).toMatch(/^[0-9a-f]{64}$/);
    expect(c).toBe(a);
    expect(b).not.toBe(a);
    await expect(openImageFolder(dir, { signal: AbortSignal.abort() })).rejects.toThrow(/abort/i);
  });

  it("turns photographs upright", async () => {
    const bytes = await sharp({ create: { width: 8, height: 8, channels: 3, background: "#000000" } })
      .composite([{ input: { create: { width: 8, height: 4, channels: 3, background: "#ffffff" } }, left: 0, top: 0 }])
      .withMetadata({ orientation: 3 })
      .png()
      .toBuffer();
    const { image } = await openDataset(await folder({ "a.png": bytes }), { size: 8 });
    const pixels = await image(0);
    expect([pixels[0], pixels[63]]).toEqual([-1, 1]);
  });

  it("refuses a folder that is missing, a file, or without a usable image", async () => {
    await expect(openImageFolder(path.join(root, "nowhere"))).rejects.toThrow(/no such folder/);
    const file = path.join(await folder({ "a.txt": "x" }), "a.txt");
    await expect(openImageFolder(file)).rejects.toThrow(/is a file, not a folder/);
    await expect(openImageFolder(await folder({}))).rejects.toThrow(/holds no image .*there are none/);
    await expect(openImageFolder(await folder({ "a.png": "x" }))).rejects.toThrow(/1 skipped, first a\.png/);
  });

  it("refuses malformed metadata by line, and a size that is no size", async () => {
    const png = await picture("cat").png().toBuffer();
    const open = async (text: string) => openImageFolder(await folder({ "a.png": png, "metadata.jsonl": text }));
    await expect(open('{"file_name":"a.png","text":"x"}\n{')).rejects.toThrow(/line 2 is not valid JSON/);
    await expect(open('{"file_name":"a.png"}')).rejects.toThrow(/line 1 must have a "file_name" and a "text"/);
    await expect(open("null")).rejects.toThrow(FormatError);
    await expect(openDataset(root, { size: 1.5 })).rejects.toThrow(ConfigError);
  });
});
