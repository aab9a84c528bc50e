import { execFileSync } from "node:child_process";
import { existsSync, lstatSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { appendFile, open, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { HAS_FULL_DEVICE } from "../../test/support/full-device.js";
import { describeSystemError, makeFolder, readWholeFile, writeFileAtomically } from "./file-access.js";

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

it.skipIf(process.platform === "win32")("writes into a pipe, also behind a link, and leaves it a pipe", async () => {
  const pipe = join(folder, "pipe");
  execFileSync("mkfifo", [pipe]);
  symlinkSync(pipe, join(folder, "link"));
  const read = readFile(pipe, "utf8");
  await writeFileAtomically(join(folder, "link"), [new TextEncoder().encode("whole")]);
  expect(await read).toBe("whole");
  expect(lstatSync(pipe).isFIFO()).toBe(true);
  expect(lstatSync(join(folder, "link")).isSymbolicLink()).toBe(true);
});

describe("describeSystemError", () => {
  const refused = (work: Promise<unknown>) => work.then(() => undefined, describeSystemError);

  it.skipIf(!HAS_FULL_DEVICE)("names a full disk, with the path where the system tells it", async () => {
    expect(await refused(appendFile("/dev/full", "x"))).toMatch(/^.*: no space left; free some and try again\.$/);
    const handle = await open("/dev/full", "w");
    expect(await refused(handle.writeFile("x"))).toBe("writing a file: no space left; free some and try again.");
    await handle.close();
  });

  it("names a link that leads in a circle, and a name that is too long", async () => {
    symlinkSync("circle.png", join(folder, "circle.png"));
    expect(await refused(readFile(join(folder, "circle.png")))).toMatch(/circle\.png: a link that leads in a circle/);
    expect(await refused(readFile(join(folder, "x".repeat(300))))).toMatch(/name is too long/);
    await expect(readWholeFile(join(folder, "circle.png"))).rejects.toThrow(/cannot be read: a link .* in a circle/);
  });

  it("leaves what is no refusal of the system as it is", () => {
    expect(describeSystemError(new TypeError("x is not a function"))).toBeUndefined();
    expect(describeSystemError("ENOSPC")).toBeUndefined();
  });
});
