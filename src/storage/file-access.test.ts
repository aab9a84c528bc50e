import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { makeFolder } from "./file-access.js";

const folder = mkdtempSync(join(tmpdir(), "fera-folders-"));
afterAll(() => rmSync(folder, { recursive: true }));

it("makes a folder with those above it, and leaves one that is there", async () => {
  const deep = join(folder, "a", "b", "c");
  await makeFolder(deep);
  expect(existsSync(deep)).toBe(true);
  await makeFolder(deep);
});

it("refuses where a file is in the way", async () => {
  writeFileSync(join(folder, "file"), "");
  await expect(makeFolder(join(folder, "file"))).rejects.toThrow(/EEXIST/);
  await expect(makeFolder(join(folder, "file", "below"))).rejects.toThrow(/EEXIST|ENOTDIR/);
});

it("ends with the system's error where a file system makes no folders", async () => {
  const place = process.platform === "linux" ? "/proc/fera" : join(folder, "file", "x");
  await expect(makeFolder(place)).rejects.toThrow();
}, 5000);
