import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  realpath,
  rm,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FormatError } from "../errors.js";
import { tensor } from "../tensor/tensor.js";
import { openSafetensors, readSafetensors, readTorch, writeSafetensors, writeTorch } from "./tensor-file.js";

const REFERENCE = "test/reference/unet-sd15/adapters_trained.safetensors";
let folder: string;

beforeAll(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), "fera-safetensors-")));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe("readSafetensors", () => {
  it("reads the same from a path and from bytes", async () => {
    const fromPath = await readSafetensors(REFERENCE);
    const fromBytes = await readSafetensors(await readFile(REFERENCE));
    expect(fromPath.tensors.size).toBeGreaterThan(10);
    expect(fromBytes).toEqual(fromPath);
  });

  it("reads bytes that lie anywhere in memory, in Node's Buffers, too", async () => {
    const bytes = await readFile(REFERENCE);
    const expected = await readSafetensors(REFERENCE);
    for (let shift = 0; shift < 8; shift++) {
      const buffer = Buffer.alloc(bytes.length + shift).subarray(shift);
      bytes.copy(buffer);
      expect((await readSafetensors(buffer)).tensors).toEqual(expected.tensors);
    }
  });

  it("rejects a missing file, a folder and a truncated file by name", async () => {
    await expect(readSafetensors(join(folder, "none.safetensors"))).rejects.toThrow(
      /none\.safetensors: .*no such file/,
    );
    await expect(readSafetensors(folder)).rejects.toThrow(/is not a file/);
    const cut = join(folder, "cut.safetensors");
    await writeFile(cut, await readFile(REFERENCE));
    await truncate(cut, 60_000);
    await expect(readSafetensors(cut)).rejects.toThrow(/cut\.safetensors: .*truncated/);
    await truncate(cut, 5);
    await expect(readSafetensors(cut)).rejects.toThrow(FormatError);
  });
});

describe("a file that is something else", () => {
  const ascii = (text: string) => new TextEncoder().encode(text);
  it.each([
    [
      "pointer.safetensors",
      ascii("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
      /Git LFS pointer; fetch/,
    ],
    ["page.safetensors", ascii("<!DOCTYPE html><html></html>"), /a web page/],
    ["zip.safetensors", Uint8Array.of(0x50, 0x4b, 3, 4, 0, 0, 8, 8, 0), /a zip archive; .*name it \.pt/],
  ])("is named: %s", async (name, bytes, message) => {
    const path = join(folder, name);
    await writeFile(path, bytes);
    await expect(openSafetensors(path)).rejects.toThrow(message);
    await expect(readSafetensors(bytes)).rejects.toThrow(message);
  });
});

describe("openSafetensors", () => {
  it("gives absolute offsets into the real file behind a link", async () => {
    const path = join(folder, "real.safetensors");
    await writeSafetensors(path, { a: tensor([1, 2, 3]), b: tensor([4, 5], [2, 1]) }, { k: "v" });
    const link = join(folder, "link.safetensors");
    await symlink("real.safetensors", link);
    const opened = await openSafetensors(link);
    expect(opened.path).toBe(path);
    expect(opened.metadata).toEqual({ k: "v" });
    const { dtype, shape, offset, length } = opened.entries.get("b")!;
    expect({ dtype, shape, length }).toEqual({ dtype: "F32", shape: [2, 1], length: 8 });
    const bytes = await readFile(path);
    expect([bytes.readFloatLE(offset), bytes.readFloatLE(offset + 4)]).toEqual([4, 5]);
  });
});

describe("writeSafetensors", () => {
  it("round-trips a reference file", async () => {
    const original = await readSafetensors(REFERENCE);
    const path = join(folder, "copy.safetensors");
    await writeSafetensors(path, original.tensors, original.metadata);
    const copy = await readSafetensors(path);
    expect(copy.metadata).toEqual(original.metadata);
    for (const [name, value] of original.tensors) expect(copy.tensors.get(name)).toEqual(value);
  });

  it("replaces a file whole, follows a link and leaves no temporary file", async () => {
    const own = join(folder, "own");
    await mkdir(own);
    await writeSafetensors(join(own, "a.safetensors"), { a: tensor([1]) });
    await symlink("a.safetensors", join(own, "l.safetensors"));
    await writeSafetensors(join(own, "l.safetensors"), { a: tensor([2]) });
    expect(await readlink(join(own, "l.safetensors"))).toBe("a.safetensors");
    expect((await readSafetensors(join(own, "a.safetensors"))).tensors.get("a")).toEqual(tensor([2]));
    expect((await readdir(own)).sort()).toEqual(["a.safetensors", "l.safetensors"]);
  });

  it("rejects a missing folder, a file as folder and a folder as target, and leaves nothing behind", async () => {
    const own = join(folder, "target.safetensors");
    await mkdir(own);
    const tensors = { a: tensor([1]) };
    const before = await readdir(folder);
    await expect(writeSafetensors(join(folder, "no", "x.safetensors"), tensors)).rejects.toThrow(
      /folder does not exist/,
    );
    await expect(writeSafetensors(join(REFERENCE, "x.safetensors"), tensors)).rejects.toThrow(/not a folder/);
    const failure = await writeSafetensors(own, tensors).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(FormatError);
    expect((failure as FormatError).cause).toBeInstanceOf(Error);
    expect(await readdir(folder)).toEqual(before);
  });

  it.skipIf(process.getuid?.() === 0 || process.platform === "win32")(
    "rejects a folder without write permission",
    async () => {
      const locked = join(folder, "locked");
      await mkdir(locked);
      await chmod(locked, 0o500);
      await expect(writeSafetensors(join(locked, "x.safetensors"), {})).rejects.toThrow(/permission denied/);
    },
  );

  it.skipIf(process.platform !== "linux")(
    "rejects what the system refuses, keeping its error as the cause",
    async () => {
      const failure = await writeSafetensors("/proc/x.safetensors", { a: tensor([1]) }).catch(
        (error: unknown) => error,
      );
      expect(failure).toBeInstanceOf(FormatError);
      expect((failure as FormatError).cause).toHaveProperty("syscall", "open");
    },
  );
});

describe("torch files", () => {
  it("round-trips the file that torch saved, and leaves no temporary file", async () => {
    await mkdir(join(folder, "torch"));
    const original = await readTorch("test/reference/unet-sd15/fera_output.pt");
    await writeTorch(join(folder, "torch", "copy.pt"), original);
    await writeTorch(join(folder, "torch", "copy.pt"), original);
    expect([...(await readTorch(join(folder, "torch", "copy.pt")))]).toEqual([...original]);
    expect(await readdir(join(folder, "torch"))).toEqual(["copy.pt"]);
  });

  it("rejects missing files and folders by name", async () => {
    await expect(readTorch(join(folder, "none.pt"))).rejects.toThrow(/none\.pt: cannot be read: no such file/);
    const write = writeTorch(join(folder, "no", "x.pt"), { a: tensor([1]) });
    await expect(write).rejects.toThrow(/folder does not exist/);
    await expect(write).rejects.toThrow(FormatError);
  });
});
