import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { plainPng, writeFolder } from "../../../test/support/data-folder.js";
import { openDataset } from "./dataset.js";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "fera-known-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

async function manyImages(count: number): Promise<string> {
  const files = await Promise.all(
    Array.from({ length: count }, async (_, i) => [`${i}.png`, await plainPng(i)] as const),
  );
  return writeFolder(root, Object.fromEntries(files));
}

describe("what is known of images", () => {
  it("is kept for large folders by content: a changed file is read again, a damaged cache is none", async () => {
    const cache = join(root, "cache");
    const dir = await manyImages(210);
    const options = { size: 8, cache, validationSplit: 0 };
    const first = await openDataset(dir, options);
    const [kept] = await readdir(join(cache, "data"));
    const file = join(cache, "data", kept!);
    // What is kept is what is used: another width shows that the file was not decoded again.
    const content = JSON.parse(await readFile(file, "utf8"));
    expect(Object.keys(content.images)).toHaveLength(210);
    content.images[first.contentHash(3)].own.width = 99;
    await writeFile(file, JSON.stringify(content));
    expect((await openDataset(dir, options)).traits(3)!.own.width).toBe(99);

    await writeFile(join(dir, first.name(3)), await plainPng(1000));
    await writeFile(join(dir, first.name(4)), "no image");
    const changed = await openDataset(dir, options);
    expect(changed.size).toBe(209);
    expect(changed.traits(3)!.own.width).toBe(8);

    await writeFile(file, "{");
    expect((await openDataset(dir, options)).size).toBe(209);
    content.version = "older";
    await writeFile(file, JSON.stringify(content));
    expect((await openDataset(dir, options)).traits(3)!.own.width).toBe(8);
  });

  it("is not kept for small folders, nor where there is to be no cache", async () => {
    const cache = join(root, "none");
    await openDataset(await manyImages(20), { size: 8, cache });
    await expect(readdir(cache)).rejects.toThrow(/ENOENT/);
    await openDataset(await manyImages(210), { size: 8, cache: false });
  });
});
