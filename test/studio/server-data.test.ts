// Data sets of `fera studio`: what is dropped, captions, and names that mean no good.

import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DataSetSummary, DataSetView, StudioState } from "../../src/studio/protocol.js";
import { plainPng } from "../support/data-folder.js";
import { type StartedStudio, startStudio } from "../support/studio.js";

let dir: string;
let set: string;
let listed: string;
let studio: StartedStudio;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-studio-"));
  [set, listed] = [join(dir, "data/animals"), join(dir, "data/listed")];
  for (const folder of [set, listed]) await mkdir(folder, { recursive: true });
  await writeFile(join(set, "cat.png"), await plainPng(1));
  await writeFile(join(set, "copy.png"), await plainPng(1));
  await writeFile(join(set, "dog.png"), await plainPng(2));
  await writeFile(join(set, "dog.txt"), "a dog\n");
  await writeFile(join(listed, "a.png"), await plainPng(3));
  await writeFile(join(listed, "metadata.jsonl"), '{"file_name":"a.png","text":"from the list"}\n');
  await writeFile(join(dir, "outside.txt"), "untouched");
  studio = await startStudio({
    data: [join(dir, "data")],
    runs: join(dir, "runs"),
    env: { FERA_CACHE: join(dir, "cache") },
  });
});

afterAll(async () => {
  await studio.stop();
  await rm(dir, { recursive: true });
});

const view = (id: string, query = {}) =>
  studio.api<DataSetView>(`dataset?${new URLSearchParams({ id, resolution: "64", ...query })}`);

const drop = (id: string, name: string, content: string | Uint8Array) => studio.upload(id, name, content);

describe("a data set", () => {
  it("is a folder of the chosen one, with what a training would see", async () => {
    const { dataSets } = await studio.api<StudioState>("state");
    expect(dataSets.map(({ id, images, isWritable }) => [id, images, isWritable])).toEqual([
      [set, 3, true],
      [listed, 1, true],
    ]);
    const { images, buckets } = await view(set, { bucket: "true" });
    expect(buckets).toEqual([{ width: 64, height: 64, images: 3 }]);
    expect(images.map(({ name, caption, isEditable }) => [name, caption, isEditable])).toEqual([
      ["cat.png", "cat", true],
      ["copy.png", "copy", true],
      ["dog.png", "a dog", true],
    ]);
    expect(images.map(({ warnings }) => warnings.map(({ kind }) => kind))).toEqual([
      ["duplicate", "uncaptioned", "tiny"],
      ["duplicate", "uncaptioned", "tiny"],
      ["tiny"],
    ]);
    expect(images[0]!.warnings[0]!.text).toBe("The same file as copy.png: it counts 2 times in an epoch.");
    expect((await view(listed)).images).toMatchObject([{ caption: "from the list", isEditable: false }]);
  });

  it("takes captions into NAME.txt, as they are", async () => {
    const caption = '<img src=x onerror="alert(1)"> “Katze”\u202e';
    await studio.api("dataset/caption", { id: set, image: "cat.png", caption });
    expect(await readFile(join(set, "cat.txt"), "utf8")).toBe(`${caption}\n`);
    expect((await view(set)).images[0]!.caption).toBe(caption);
    await studio.api("dataset/caption", { id: set, image: "cat.png", caption: "" });
    expect((await view(set)).images[0]!.warnings.map(({ kind }) => kind)).toContain("emptyCaption");
  });

  it("keeps captions that come from elsewhere, and writes nothing outside its folder", async () => {
    const write = (id: string, image: string, caption = "new") => studio.api("dataset/caption", { id, image, caption });
    await expect(write(listed, "a.png")).rejects.toThrow(/comes from metadata\.jsonl/);
    await expect(write(set, "../outside.png")).rejects.toThrow(/outside/);
    await expect(write(set, "dog.txt")).rejects.toThrow(/is no image/);
    await expect(write(dir, "x.png")).rejects.toThrow(/outside the folders that the studio was started with/);
    await expect(write(set, "dog.png", "x".repeat(900_000))).rejects.toThrow(/may have \d+ bytes/);
    await writeFile(join(set, "linked.png"), await plainPng(9));
    await symlink(join(dir, "outside.txt"), join(set, "linked.txt"));
    await expect(write(set, "linked.png")).rejects.toThrow();
    expect(await readFile(join(dir, "outside.txt"), "utf8")).toBe("untouched");
    for (const name of ["linked.png", "linked.txt"]) await rm(join(set, name));
  });

  it("lets go of an image with its caption, which stay in a hidden folder", async () => {
    await studio.api("dataset/remove", { id: set, image: "dog.png" });
    expect((await view(set)).images.map(({ name }) => name)).toEqual(["cat.png", "copy.png"]);
    const [time] = await readdir(join(set, ".removed"));
    expect((await readdir(join(set, ".removed", time!))).sort()).toEqual(["dog.png", "dog.txt"]);
  });
});

describe("what is dropped", () => {
  let made: DataSetSummary;
  beforeAll(async () => {
    made = await studio.api<DataSetSummary>("datasets", { label: "Dropped" });
  });

  it("goes into a set that was made for it, below the chosen folder", async () => {
    expect(made).toMatchObject({ id: join(dir, "data/Dropped"), label: "Dropped", images: 0, isWritable: true });
    expect(await view(made.id)).toMatchObject({ images: [], buckets: [] });
    await expect(studio.api("datasets", { label: "Dropped" })).rejects.toThrow(/already a data set/);
    for (const label of ["../x", ".hidden", "", "a/b"]) {
      await expect(studio.api("datasets", { label })).rejects.toThrow(/cannot be called/);
    }
  });

  it("is there if it is an image, once; another of the same name gets a number", async () => {
    expect(await drop(made.id, "one.png", await plainPng(1))).toEqual({ added: ["one.png"], refused: [] });
    expect((await drop(made.id, "one.png", await plainPng(1))).refused[0]!.reason).toMatch(/is there already/);
    expect(await drop(made.id, "ONE.png", await plainPng(2))).toEqual({ added: ["ONE-2.png"], refused: [] });
    expect(await drop(made.id, "one.txt", "first")).toEqual({ added: ["one.txt"], refused: [] });
    expect((await drop(made.id, "one.txt", "second")).refused[0]!.reason).toMatch(/left alone/);
    expect((await view(made.id)).images.map(({ name, caption }) => [name, caption])).toEqual([
      ["ONE-2.png", "ONE 2"],
      ["one.png", "first"],
    ]);
  });

  it("does not stay if it is broken, empty, something else, or larger than an image", async () => {
    const noise = Buffer.from(Array.from({ length: 40_000 }, (_, i) => (i * 7919) % 251));
    const photo = await sharp(noise, { raw: { width: 100, height: 100, channels: 4 } })
      .removeAlpha()
      .jpeg()
      .toBuffer();
    const refusedAs = async (name: string, content: string | Uint8Array) =>
      (await drop(made.id, name, content)).refused[0]?.reason;
    expect(await refusedAs("half.jpg", photo.subarray(0, photo.length / 2))).toMatch(/is no readable image/);
    expect(await refusedAs("text.png", "no image")).toMatch(/is no readable image/);
    expect(await refusedAs("nothing.png", "")).toMatch(/empty/);
    expect(await refusedAs("page.html", "<script>alert(1)</script>")).toMatch(/is no image that is read/);
    expect(await refusedAs("bytes.txt", new Uint8Array([0xff, 0xfe, 0xfd]))).toMatch(/UTF-8/);
    expect((await readdir(made.id)).sort()).toEqual(["ONE-2.png", "one.png", "one.txt"]);
  });

  it("cannot leave its folder, hide, or be a device by its name; what is only odd is kept as it is", async () => {
    const image = await plainPng(7);
    for (const name of [
      "../../up.png",
      "/tmp/up.png",
      "a\\b.png",
      ".hidden.png",
      "con.png",
      "line\nbreak.png",
      `${"x".repeat(300)}.png`,
    ]) {
      const { added, refused } = await drop(made.id, name, image);
      expect([added, refused[0]?.name], name).toEqual([[], name]);
      expect(refused[0]!.reason).toMatch(/^Its name cannot be used: /);
    }
    const odd = "<img src=x onerror=alert(1)>'\"&.png";
    expect(await drop(made.id, odd, image)).toEqual({ added: [odd], refused: [] });
    expect((await view(made.id)).images.map(({ name }) => name)).toContain(odd);
    const address = `${studio.origin}/api/dataset/image?${new URLSearchParams({ id: made.id, image: odd, side: "32", token: studio.token })}`;
    expect((await fetch(address)).headers.get("content-type")).toBe("image/webp");
  });
});
