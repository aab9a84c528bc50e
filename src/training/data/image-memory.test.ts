import { mkdtemp, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { plainPng, writeFolder } from "../../../test/support/data-folder.js";
import { FormatError } from "../../errors.js";
import { openImageFolder } from "./image-folder.js";
import { ImageMemory } from "./image-memory.js";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "fera-memory-"));
});
afterAll(() => rm(root, { recursive: true }));

describe("ImageMemory", () => {
  it("looks at a file once, and again when it has changed, even at the same size and time", async () => {
    const file = join(root, "a.png");
    const memory = new ImageMemory();
    let looks = 0;
    const look = () =>
      memory.of(file, async () => {
        looks++;
        if (looks > 2) throw new FormatError(file, "is no readable image");
        return { hash: String(looks), traits: TRAITS };
      });
    await writeFile(file, "one");
    await utimes(file, 1000, 1000);
    expect([(await look()).hash, (await look()).hash]).toEqual(["1", "1"]);
    await writeFile(file, "two");
    await utimes(file, 1000, 1000);
    expect((await look()).hash).toBe("2");
    await writeFile(file, "3");
    // What is refused is read once, too.
    await expect(look()).rejects.toThrow("is no readable image");
    await expect(look()).rejects.toThrow("is no readable image");
    expect(looks).toBe(3);
  });

  it("gives a folder the images that it has by now", async () => {
    const folder = await writeFolder(root, { "a.png": await plainPng(1), "b.png": "none" });
    const memory = new ImageMemory();
    const open = () => openImageFolder(folder, { memory, cache: false });
    const names = async () => (await open()).images.map(({ path }) => path);
    const [before] = (await open()).images;
    expect((await open()).images[0]!.contentHash).toBe(before!.contentHash);
    await writeFile(join(folder, "a.png"), await plainPng(2));
    await writeFile(join(folder, "b.png"), await plainPng(3));
    expect(await names()).toEqual(["a.png", "b.png"]);
    expect((await open()).images[0]!.contentHash).not.toBe(before!.contentHash);
    await rm(join(folder, "a.png"));
    expect(await names()).toEqual(["b.png"]);
  });
});

const TRAITS = {
  own: { width: 1, height: 1 },
  isDrawing: false,
  isTurned: false,
  isAnimated: false,
  isTransparent: false,
};
