import { describe, expect, it } from "vitest";
import { formatBytes, ordinal } from "./amounts.js";

describe("formatBytes", () => {
  it("takes the unit that leaves few digits", () => {
    expect([0, 999, 1500, 5_368_709_120, 16.6e9, 3e15].map(formatBytes)).toEqual([
      "0 B",
      "999 B",
      "1.5 KB",
      "5.4 GB",
      "17 GB",
      "3000 TB",
    ]);
  });
});

describe("ordinal", () => {
  it("knows the teens", () => {
    expect([1, 2, 3, 4, 11, 12, 13, 21, 111, 102].map(ordinal)).toEqual([
      ...["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "111th", "102nd"],
    ]);
  });
});
