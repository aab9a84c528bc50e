import { describe, expect, it } from "vitest";
import { formatValue, joined, stacked, summarized, thinnedRows } from "./chart-data.js";

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
