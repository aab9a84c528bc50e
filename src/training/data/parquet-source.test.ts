import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HubServer } from "../../../test/support/hub-server.js";
import { ConfigError, FormatError } from "../../errors.js";
import { type ImageDataset, openDataset } from "./dataset.js";

const REFERENCE = "test/reference/parquet";
const all = { size: 8, validationSplit: 0 };

let root: string;
beforeAll(async () => {
  root = await mkdtemp(path.join(tmpdir(), "fera-parquet-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

const captions = (set: ImageDataset) => Array.from({ length: set.size }, (_, i) => set.caption(i));
/** The red of an image's first pixel, 0…255. */
const red = async (set: ImageDataset, i: number) => Math.round(((await set.image(i))[0]! + 1) * 127.5);

describe("openDataset of Parquet files", () => {
  it("reads a folder as the hub has it: the split train, the columns that its features name, every row group", async () => {
    const set = await openDataset(path.join(REFERENCE, "hub"), all);
    expect(captions(set)).toEqual(Array.from({ length: 10 }, (_, i) => `red ${i}`));
    expect(set.captionSource(0)).toBe("column");
    expect(set.name(7)).toBe("data/train-00001-of-00002.parquet/2");
    // Out of order, over both files.
    for (const i of [9, 0, 4, 3, 5]) expect(await red(set, i)).toBe(10 * i);
    expect(set.skipped).toEqual([{ path: "data/test-00000-of-00001.parquet", reason: "is not of the split train" }]);
    const thumbnails = await openDataset(path.join(REFERENCE, "hub"), { ...all, imageColumn: "thumbnail" });
    expect(await red(thumbnails, 0)).toBe(200);
  });

  it.each(["none", "snappy", "gzip", "zstd", "brotli", "lz4"])(
    "reads plain columns under the codec %s",
    async (codec) => {
      const set = await openDataset(path.join(REFERENCE, `${codec}.parquet`), { ...all, instancePrompt: "none given" });
      expect(captions(set)).toEqual(["first", "none given"]);
      expect(await red(set, 1)).toBe(30);
      expect(set.skipped).toEqual([
        { path: `${codec}.parquet/1`, reason: "holds no image" },
        { path: `${codec}.parquet/2`, reason: expect.stringMatching(/^is no readable image/) },
      ]);
    },
  );

  it("refuses rows without a caption, columns that are not there, and what holds something else, by name", async () => {
    const none = path.join(REFERENCE, "none.parquet");
    await expect(openDataset(none, all)).rejects.toThrow(ConfigError);
    await expect(openDataset(none, all)).rejects.toThrow(/1 rows have no caption, first none\.parquet\/3/);
    await expect(openDataset(none, { ...all, imageColumn: "img" })).rejects.toThrow(/its columns are id, jpg, caption/);
    await expect(openDataset(none, { ...all, imageColumn: "id" })).rejects.toThrow(/"id" holds no bytes/);
    await expect(openDataset(none, { ...all, captionColumn: "text" })).rejects.toThrow(/"text" is not there/);
    const lists = path.join(REFERENCE, "lists.parquet");
    await expect(openDataset(lists, { ...all, captionColumn: "captions" })).rejects.toThrow(/holds a list, no text/);
    const named = await openDataset(lists, all);
    expect(captions(named)).toEqual(["red 0", "red 1", "red 2", "red 3"]);
    expect(named.captionSource(0)).toBe("fileName");
  });

  it("refuses a damaged file by name", async () => {
    const file = path.join(root, "cut.parquet");
    await writeFile(file, "PAR1 and then nothing PAR1");
    await expect(openDataset(file, all)).rejects.toThrow(FormatError);
    await expect(openDataset(file, all)).rejects.toThrow(/cut\.parquet: is no readable Parquet file/);
    await expect(openDataset(path.join(root, "gone.parquet"), all)).rejects.toThrow(/gone\.parquet: cannot be read/);
  });

  it("leaves tables alone where there are images, and says so", async () => {
    const dir = path.join(root, "mixed");
    await cp(path.join(REFERENCE, "lists.parquet"), path.join(dir, "lists.parquet"));
    await cp("test/reference/pipeline-tiny/images", path.join(dir, "x"), { recursive: true }).catch(() => undefined);
    const sharp = (await import("sharp")).default;
    await sharp({ create: { width: 8, height: 8, channels: 3, background: "red" } }).toFile(path.join(dir, "a.png"));
    const set = await openDataset(dir, all);
    expect(set.size).toBe(1);
    expect(set.skipped).toContainEqual({
      path: "lists.parquet",
      reason: expect.stringMatching(/name it as data by itself/),
    });
  });
});

describe("openDataset of an id on the hub", () => {
  let server: HubServer;
  let hub: { cacheDir: string };
  const before = process.env.HF_ENDPOINT;
  beforeAll(async () => {
    const { readFile } = await import("node:fs/promises");
    const file = (name: string) => readFile(path.join(REFERENCE, "hub/data", name));
    const png = await (await import("sharp"))
      .default({ create: { width: 8, height: 8, channels: 3, background: "lime" } })
      .png()
      .toBuffer();
    server = new HubServer({
      "someone/reds": {
        commit: "a".repeat(40),
        revisions: ["main"],
        isDataset: true,
        files: {
          "README.md": "about",
          "data/train-00000-of-00002.parquet": await file("train-00000-of-00002.parquet"),
          "data/train-00001-of-00002.parquet": await file("train-00001-of-00002.parquet"),
          "data/test-00000-of-00001.parquet": await file("test-00000-of-00001.parquet"),
        },
      },
      "someone/photos": {
        commit: "b".repeat(40),
        revisions: ["main"],
        isDataset: true,
        files: { "a.png": png, "a.txt": "a lime", "model.bin": "x" },
      },
      "someone/code": { commit: "c".repeat(40), revisions: ["main"], isDataset: true, files: { "load.py": "x" } },
    });
    await server.start();
    process.env.HF_ENDPOINT = server.address;
    hub = { cacheDir: path.join(root, "hub") };
  });
  afterAll(async () => {
    if (before === undefined) delete process.env.HF_ENDPOINT;
    else process.env.HF_ENDPOINT = before;
    await server.stop();
  });

  it("fetches the training split's files into the hub's cache, once, and reads them", async () => {
    const set = await openDataset("someone/reds", { ...all, hub });
    expect(set.size).toBe(10);
    expect(server.fetched.sort()).toEqual(["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]);
    await openDataset("someone/reds", { ...all, hub });
    expect(server.fetched).toHaveLength(2);
  });

  it("reads a repository of images and captions, and refuses one of neither, or none", async () => {
    const set = await openDataset("someone/photos", { ...all, hub });
    expect(captions(set)).toEqual(["a lime"]);
    expect(server.fetched).not.toContain("model.bin");
    await expect(openDataset("someone/code", { ...all, hub })).rejects.toThrow(/neither Parquet files nor images/);
    await expect(openDataset("someone/nothing", { ...all, hub })).rejects.toThrow(/no such public data set on the hub/);
  });
});
