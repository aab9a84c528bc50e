import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { FormatError } from "../errors.js";
import { tensor } from "../tensor/tensor.js";
import { readTorch, writeTorch } from "./torch-file.js";

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fera-torch-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

it("round-trips the file that torch saved, and leaves no temporary file", async () => {
  const original = await readTorch("test/reference/unet-sd15/fera_output.pt");
  await writeTorch(join(folder, "copy.pt"), original);
  await writeTorch(join(folder, "copy.pt"), original);
  expect([...(await readTorch(join(folder, "copy.pt")))]).toEqual([...original]);
  expect(await readdir(folder)).toEqual(["copy.pt"]);
});

it("rejects missing files and folders by name", async () => {
  await expect(readTorch(join(folder, "none.pt"))).rejects.toThrow(/none\.pt: cannot be read: no such file/);
  const write = writeTorch(join(folder, "no", "x.pt"), { a: tensor([1]) });
  await expect(write).rejects.toThrow(/folder does not exist/);
  await expect(write).rejects.toThrow(FormatError);
});
