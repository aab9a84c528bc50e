import { describe, expect, it } from "vitest";
import { formatAxis, formatValue, joined, lastKnown, stacked, summarized, thinnedRows } from "./chart-data.js";

describe("curves of a chart", () => {
  it("are brought to one x, with gaps where one has no value", () => {
    const a = { x: [1, 2, 4], y: [10, 20, 40] };
    const b = { x: [2, 3], y: [5, Number.NaN] };
    expect(joined([a, b])).toEqual({
      x: [1, 2, 3, 4],
      columns: [
        [10, 20, null, 40],
        [null, 5, null, null],
      ],
    });
  });

  it("stack up", () => {
    expect(
      stacked({
        x: [0, 1],
        columns: [
          [0.2, 0.3],
          [0.5, null],
          [0.3, 0.7],
        ],
      }).columns,
    ).toEqual([
      [0.2, 0.3],
      [0.7, 0.3],
      [1, 1],
    ]);
  });

  it("are told in a sentence", () => {
    expect(summarized({ label: "loss", x: [1, 2, 3], y: [0.5, 0.1, 0.25] }, "step")).toBe(
      "loss: 0.5 at step 1, 0.25 at step 3, lowest 0.1 at 2.",
    );
    expect(summarized({ label: "loss", x: [], y: [] }, "step")).toBe("loss: nothing yet.");
  });
});

it("a long table is shown by a few rows, the first and the last among them", () => {
  expect(thinnedRows(3, 5)).toEqual([0, 1, 2]);
  expect(thinnedRows(101, 5)).toEqual([0, 25, 50, 75, 100]);
});

it.each([
  [0, "0"],
  [0.000123456, "1.23e-4"],
  [-0.00001, "-1e-5"],
  [0.0123456, "0.0123"],
  [12.345, "12.3"],
  [12345.6, "12346"],
  [1234567, "1.23e+6"],
])("%d is written %s", (value, text) => expect(formatValue(value)).toBe(text));

it("numbers along an axis differ from each other", () => {
  expect(formatAxis([0.0344, 0.03445, 0.0345], 0.00005)).toEqual(["0.0344", "0.03445", "0.0345"]);
  expect(formatAxis([10, 12.5, 15], 2.5)).toEqual(["10", "12.5", "15"]);
  expect(formatAxis([0, 1e-7, 2e-7], 1e-7)).toEqual(["0", "1e-7", "2e-7"]);
  expect(formatAxis([0, 0.5, 1], 0.5)).toEqual(["0", "0.5", "1"]);
  expect(formatAxis([0, 0.00005, 0.0001], 0.00005)).toEqual(["0", "5e-5", "1e-4"]);
  expect(formatAxis([1000, null, 1200], 100)).toEqual(["1000", "", "1200"]);
});

it("a value where there is none is the last before it", () => {
  expect(lastKnown([1, null, 3, null], 3)).toBe(3);
  expect(lastKnown([1, null, 3, null], 1)).toBe(1);
  expect(lastKnown([null], 0)).toBeUndefined();
});
