import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { decodeText, readTextFile } from "./text-file.js";

const TEXT = "Füße, 犬 and 😀";
const bigEndian = (text: string) => Buffer.from(text, "utf16le").swap16();

describe("decodeText", () => {
  it.each([
    ["UTF-8", Buffer.from(TEXT)],
    ["UTF-8 with its mark", Buffer.from(`\uFEFF${TEXT}`)],
    ["UTF-16, little end first", Buffer.from(`\uFEFF${TEXT}`, "utf16le")],
    ["UTF-16, big end first", bigEndian(`\uFEFF${TEXT}`)],
  ])("reads %s", (_, bytes) => {
    expect(decodeText(bytes, "a.txt")).toBe(TEXT);
  });

  it.each([
    ["Latin-1", Buffer.from("Füße", "latin1"), /a\.txt: is not valid UTF-8\. Save it as UTF-8/],
    ["UTF-16 without a mark", Buffer.from("cat", "utf16le"), /a\.txt: holds NUL characters/],
    ["UTF-16 that is cut off", Buffer.from("\uFEFFcat", "utf16le").subarray(0, 7), /not valid UTF-16LE, which its/],
    ["half a surrogate pair", Buffer.from("\uFEFF\ud83d", "utf16le"), /not valid UTF-16LE/],
    ["UTF-32", Uint8Array.from([0xff, 0xfe, 0, 0, 0x63, 0, 0, 0]), /is UTF-32/],
    ["a picture", Uint8Array.from([0x89, 0x50, 0x4e, 0x47]), /not valid UTF-8/],
  ])("refuses %s by the file's name", (_, bytes, message) => {
    expect(() => decodeText(bytes, "a.txt")).toThrow(message);
  });
});

describe("readTextFile", () => {
  it("refuses a file by its size, before it is read", async () => {
    const dir = await mkdtemp(join(tmpdir(), "fera-text-"));
    const file = join(dir, "large.txt");
    await writeFile(file, "cat");
    expect(await readTextFile(file, 3)).toBe("cat");
    // More than a text can have, and all of it a hole.
    await truncate(file, 2 ** 40);
    await expect(readTextFile(file, 65_536)).rejects.toThrow(/has 1099511627776 bytes; at most 65536/);
    await rm(dir, { recursive: true });
  });
});
