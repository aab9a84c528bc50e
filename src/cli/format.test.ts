import { describe, expect, it } from "vitest";
import { formatBytes } from "../storage/file-descriptions.js";
import { counted, formatDuration, formatTable, shellCommand } from "./format.js";

describe("formatting", () => {
  it.each([
    [4.2, "4 s"],
    [59.7, "1 min 0 s"],
    [75, "1 min 15 s"],
    [3725, "1 h 2 min"],
    [7199, "2 h 0 min"],
  ])("%d seconds are %s", (seconds, text) => expect(formatDuration(seconds)).toBe(text));

  it.each([
    [999, "999 B"],
    [12_345_678, "12.3 MB"],
    [3_438_000_000, "3.44 GB"],
  ])("%d bytes are %s", (bytes, text) => expect(formatBytes(bytes)).toBe(text));

  it("counts one and many", () => {
    expect([counted(1, "image"), counted(1200, "image")]).toEqual(["1 image", "1,200 images"]);
  });

  it("quotes what a shell would take apart", () => {
    expect(shellCommand(["fera", "--prompt", "a cat's hat", "./a_b-1.png"])).toBe(
      "fera --prompt 'a cat'\\''s hat' ./a_b-1.png",
    );
  });

  it("aligns the first column left and numbers right", () => {
    expect(
      formatTable([
        ["layer", "in"],
        ["a", "16"],
        ["longer", "128"],
      ]),
    ).toEqual(["layer    in", "a        16", "longer  128"]);
  });
});
