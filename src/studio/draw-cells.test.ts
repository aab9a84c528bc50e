import { describe, expect, it } from "vitest";
import { checkedRequest, drawCells } from "./draw-cells.js";
import type { DrawRequest } from "./protocol.js";

const SAMPLERS = ["ddim", "euler"];
const request: DrawRequest = {
  ...{ model: "m", prompt: "red", steps: 4, guidanceScale: 3, adapters: [{ id: "a", scale: 1 }], compare: false },
};

describe("the pictures of a request", () => {
  it("are one, or one more without the adapters", () => {
    expect(drawCells(request, 7, SAMPLERS)).toMatchObject([
      { x: 0, y: 0, withoutAdapters: false, seed: 7, prompt: "red" },
    ]);
    const compared = drawCells({ ...request, compare: true, seed: 3 }, 7, SAMPLERS);
    expect(compared.map(({ withoutAdapters, seed }) => [withoutAdapters, seed])).toEqual([
      [false, 3],
      [true, 3],
    ]);
    expect(drawCells({ ...request, compare: true, adapters: [] }, 7, SAMPLERS)).toHaveLength(1);
  });

  it("are those of a grid, row by row, all of one seed unless seeds are an axis", () => {
    const grid: DrawRequest["grid"] = {
      x: { option: "adapterScale", values: ["0.5", 1] },
      y: { option: "sampler", values: SAMPLERS },
    };
    const cells = drawCells({ ...request, grid }, 7, SAMPLERS);
    expect(cells.map(({ x, y, sampler, adapters, seed }) => [x, y, sampler, adapters[0]!.scale, seed])).toEqual([
      [0, 0, "ddim", 0.5, 7],
      [1, 0, "ddim", 1, 7],
      [0, 1, "euler", 0.5, 7],
      [1, 1, "euler", 1, 7],
    ]);
  });

  it("are refused where an axis has a value that its option cannot have, or they are too many", () => {
    const along = (option: "steps" | "sampler" | "seed", values: (string | number)[]) => () =>
      drawCells({ ...request, grid: { x: { option, values } } }, 7, SAMPLERS);
    expect(along("steps", [4, "many"])).toThrow(/steps/);
    expect(along("sampler", ["magic"])).toThrow(/must be one of ddim, euler; got "magic"/);
    const values = Array.from({ length: 20 }, (_, i) => i);
    const both = { x: { option: "seed", values }, y: { option: "guidanceScale", values } } as const;
    expect(() => drawCells({ ...request, grid: both as DrawRequest["grid"] }, 7, SAMPLERS)).toThrow(
      /400 pictures; 256/,
    );
  });

  it.each([
    ["steps", { steps: 0 }],
    ["width", { width: 1e9 }],
    ["adapters.0.scale", { adapters: [{ id: "a", scale: Number.NaN }] }],
    ["Unrecognized key", { output: "/etc/passwd" }],
  ])("name what is wrong with a request: %s", (what, change) => {
    expect(() => checkedRequest({ ...request, ...change }, SAMPLERS)).toThrow(what);
  });
});
