import { describe, expect, it } from "vitest";
import { exampleOf, GRID_OPTIONS, type GridOption, parseValues } from "./value-list.js";

describe("values of a grid", () => {
  it.each<[string, GridOption, (string | number)[]]>([
    ["1-4", "seed", [1, 2, 3, 4]],
    ["0,0.5, 1", "adapterScale", [0, 0.5, 1]],
    ["0-1 step 0.25", "adapterScale", [0, 0.25, 0.5, 0.75, 1]],
    ["0 - 0.3 step 0.1", "guidanceScale", [0, 0.1, 0.2, 0.3]],
    ["-1..1", "adapterScale", [-1, 0, 1]],
    ["-1 - -0.5 step .5", "adapterScale", [-1, -0.5]],
    ["10-30 step 10; 25", "steps", [10, 20, 30, 25]],
    ["1, 1, 1", "seed", [1]],
    ["ddim, euler", "sampler", ["ddim", "euler"]],
    ["a cat, black; a dog\na 1-4", "prompt", ["a cat, black", "a dog", "a 1-4"]],
  ])("are read: %s", (text, option, values) =>
    expect(
      parseValues(
        text,
        option,
        ["ddim", "euler"].filter(() => option === "sampler").length ? ["ddim", "euler"] : undefined,
      ),
    ).toEqual(values),
  );

  it.each<[string, GridOption, RegExp]>([
    ["", "seed", /List the values of seed, such as/],
    ["one", "seed", /“one” is neither a number nor a range/],
    ["1.5", "steps", /whole numbers; got 1\.5/],
    ["0-2", "steps", /1 or more; got 0/],
    ["4-1", "seed", /goes down; type 1-4/],
    ["0-1 step 0", "adapterScale", /must be above 0/],
    ["1-1000000000", "seed", /has 1000000000 values; at most 64/],
    ["1-40, 100-140", "seed", /At most 64 values/],
    ["heun", "sampler", /“heun” is no sampler; there are ddim/],
  ])("are refused: %s of %s", (text, option, message) =>
    expect(parseValues(text, option, option === "sampler" ? ["ddim"] : undefined)).toMatch(message),
  );

  it("have examples that can be read", () => {
    for (const option of Object.keys(GRID_OPTIONS) as GridOption[]) {
      for (const [, example] of exampleOf(option).matchAll(/“([^”]+)”/g)) {
        expect(parseValues(example!, option)).toBeInstanceOf(Array);
      }
    }
  });
});
