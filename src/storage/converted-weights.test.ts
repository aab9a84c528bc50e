import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { float32ToFloat16 } from "../tensor/float16.js";
import { tensor } from "../tensor/tensor.js";
import { convertedCopy } from "./converted-weights.js";
import { withFile } from "./file-access.js";
import { floatChunks } from "./float-weights.js";
import { encodeSafetensors } from "./safetensors.js";
import type { Conversion } from "./storage.js";
import { openSafetensors, readSafetensors } from "./tensor-file.js";

const A = Float32Array.of(1, -2.5, 0.333251953125, 65504, 6e-8);
const HALF = { a: tensor(float32ToFloat16(A), [5], "float16"), b: tensor(float32ToFloat16(A), [5, 1], "float16") };

let root: string;
let path: string;
let messages: string[];

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "fera-converted-"));
  path = join(root, "model.safetensors");
  await writeFile(path, encodeSafetensors(HALF));
  messages = [];
  vi.stubEnv("FERA_CACHE", join(root, "cache"));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(root, { recursive: true, force: true });
});

const prepare = vi.fn(async (): Promise<Conversion> => {
  const { entries } = await openSafetensors(path);
  const named = [...entries];
  return {
    form: "float16",
    tensors: named.map(([name, { shape }]) => ({ name, shape })),
    chunks: floatChunks(path, named, (offset, length) => withFile(path, (file) => file.read(offset, length))),
  };
});
const copy = (detail = "") => convertedCopy(path, detail, prepare, { onMessage: (text) => messages.push(text) });

it("converts once, says so before, and gives the same values as float32", async () => {
  prepare.mockClear();
  const first = await copy();
  const { tensors } = await readSafetensors(first!.path);
  expect([...tensors.keys()]).toEqual(["a", "b"]);
  expect(tensors.get("b")).toMatchObject({ dtype: "float32", shape: [5, 1] });
  expect([...tensors.get("a")!.data]).toEqual([1, -2.5, 0.333251953125, 65504, 2 ** -24]);
  expect(messages).toHaveLength(1);
  expect(messages[0]).toMatch(/model\.safetensors is float16: converting it once to float32, \d+ B in .*cache/);
  expect((await copy())!.path).toBe(first!.path);
  expect(prepare).toHaveBeenCalledTimes(1);
  expect(await readdir(join(root, "cache", "float32"))).toHaveLength(1);
});

it("makes another copy when the file has changed, or for another part of it", async () => {
  const paths = new Set([(await copy())!.path, (await copy("unet"))!.path]);
  await utimes(path, new Date(), new Date(Date.now() - 1e6));
  paths.add((await copy())!.path);
  expect(paths.size).toBe(3);
});

it("makes a damaged copy anew", async () => {
  const first = await copy();
  await writeFile(first!.path, (await readFile(first!.path)).subarray(0, 50));
  expect((await readSafetensors((await copy())!.path)).tensors.get("a")!.data[1]).toBe(-2.5);
});

it("removes nothing that is fresh, and what a killed process left long ago", async () => {
  const { path: made } = (await copy())!;
  const folder = join(root, "cache", "float32");
  const name = made.slice(folder.length + 1);
  await rm(made);
  const old = join(folder, `.${name}.1.abcd.tmp`);
  await writeFile(old, "x");
  await utimes(old, new Date(0), new Date(0));
  await writeFile(join(folder, `.${name}.2.abcd.tmp`), "x");
  await copy();
  expect((await readdir(folder)).sort()).toEqual([`.${name}.2.abcd.tmp`, name]);
});

it("says why when the cache cannot be written, and leaves the conversion to the caller", async () => {
  // A file where the folder should be refuses root too, which no permission does.
  await writeFile(join(root, "cache"), "");
  expect(await copy()).toBeUndefined();
  expect(messages).toEqual([expect.stringMatching(/converted in memory, again at every start: .* cannot be written/)]);
});

it.skipIf(process.getuid?.() === 0)("says so when the folder is not writable", async () => {
  await mkdir(join(root, "cache"), { mode: 0o500 });
  expect(await copy()).toBeUndefined();
  expect(messages[0]).toMatch(/is not writable/);
});

it("leaves nothing behind when the disk is full, and says so", async () => {
  const full = Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC", syscall: "write" });
  prepare.mockImplementationOnce(async () => ({
    form: "float16",
    tensors: [{ name: "a", shape: [5] }],
    // The error as the system gives it, at the place where a write would: no disk here is full.
    chunks: (function* () {
      yield new Uint8Array(8);
      throw full;
    })(),
  }));
  expect(await copy()).toBeUndefined();
  expect(messages.at(-1)).toMatch(/no space is left in .*float32\. Set FERA_CACHE/);
  expect(await readdir(join(root, "cache", "float32"))).toEqual([]);
});

it("is refused beforehand when the copy cannot fit", async () => {
  prepare.mockImplementationOnce(async () => ({
    form: "float16",
    tensors: [{ name: "a", shape: [2 ** 50] }],
    chunks: [],
  }));
  expect(await copy()).toBeUndefined();
  expect(messages).toEqual([expect.stringMatching(/its copy takes 4504 TB, and .* has .* left/)]);
});

it("fails when the original is missing", async () => {
  await rm(path);
  await expect(copy()).rejects.toThrow(/model\.safetensors: cannot be read: no such file/);
});

it("is made by one of two processes", async () => {
  const program = join(root, "program.mts");
  await writeFile(
    program,
    `import { dirname } from "node:path";
     import { loadSafetensors } from ${JSON.stringify(join(process.cwd(), "src/models/weight-loading.ts"))};
     import { FileStorage } from ${JSON.stringify(join(process.cwd(), "src/storage/file-storage.ts"))};
     import { openSafetensorsIn } from ${JSON.stringify(join(process.cwd(), "src/storage/safetensors-source.ts"))};
     const said = [];
     const storage = new FileStorage(dirname(process.argv[2]), { onMessage: (text) => said.push(text) });
     const { weights } = await loadSafetensors(storage, await openSafetensorsIn(storage, "big.safetensors"));
     console.log(JSON.stringify({ said, path: weights.get("a").range.path }));`,
  );
  const big = join(root, "big.safetensors");
  const values = float32ToFloat16(Float32Array.from({ length: 2 ** 22 }, (_, i) => i % 1000));
  await writeFile(big, encodeSafetensors({ a: tensor(values, [2 ** 22], "float16") }));
  const run = () => promisify(execFile)(process.execPath, ["--import", "tsx", program, big]);
  const [one, two] = (await Promise.all([run(), run()])).map(({ stdout }) => JSON.parse(stdout));
  expect(one.path).toBe(two.path);
  expect([...one.said, ...two.said].filter((text: string) => text.includes("converting it once"))).toHaveLength(1);
  const { tensors } = await readSafetensors(one.path);
  expect(tensors.get("a")!.data[123_456]).toBe(456);
  expect(await readdir(join(root, "cache", "float32"))).toHaveLength(1);
});
