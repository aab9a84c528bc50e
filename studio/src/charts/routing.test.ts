import { describe, expect, it } from "vitest";
import { bandName, describeChange, describeClosed, describeTrace, traceCurves } from "./routing.js";

const trace = (gates: number[][], timesteps = gates.map((_, i) => 900 - 100 * i)) => {
  const rows = gates.map((row) => [row]);
  return { timesteps, gates: rows, weights: rows, energies: rows };
};

describe("a routing trace", () => {
  it("becomes curves over ascending timesteps, the last visit of each", () => {
    const { gates, energies } = traceCurves(
      trace(
        [
          [0.9, 0.1],
          [0.8, 0.2],
          [0.7, 0.3],
          [0.4, 0.6],
        ],
        [900, 500, 500, 100],
      ),
    );
    expect(gates.map(({ label, x, y }) => [label, x, y])).toEqual([
      ["expert 1", [100, 500, 900], [0.4, 0.7, 0.9]],
      ["expert 2", [100, 500, 900], [0.6, 0.3, 0.1]],
    ]);
    expect(energies.map(({ label }) => label)).toEqual(["low frequencies", "high frequencies"]);
  });

  it.each([
    [
      [
        [0.8, 0.2],
        [0.7, 0.3],
      ],
      "Expert 1 leads all the way: 80 % in the noise, 70 % in the image.",
    ],
    [
      [
        [0.2, 0.8],
        [0.495, 0.505],
        [0.505, 0.495],
        [0.6, 0.4],
      ],
      "Expert 2 leads in the noise (up to 80 %); expert 1 takes over at timestep 600 (up to 60 %).",
    ],
    [
      [
        [0.5, 0.5],
        [0.505, 0.495],
      ],
      "The experts are mixed alike from noise to image: expert 1 51 %, expert 2 50 %.",
    ],
    [[[1], [1]], "There is one expert: it does everything."],
    [[], "Nothing was routed."],
  ])("is told in words: %j", (gates, text) => expect(describeTrace(trace(gates))).toBe(text));
});

it("bands have names from the coarse to the fine", () => {
  expect([0, 1, 2].map((i) => bandName(i, 3))).toEqual(["low frequencies", "middle frequencies", "high frequencies"]);
  expect(bandName(1, 4)).toBe("band 2 of 4");
});

it("a change of gates is told in words", () => {
  const curve = (label: string, y: number[]) => ({ label, color: "", x: [0, 1], y });
  expect(describeChange([curve("expert 1", [0.3, 0.6]), curve("expert 2", [0.7, 0.4])])).toBe(
    "Expert 1 went from 30 % to 60 %, expert 2 went from 70 % to 40 %.",
  );
  expect(describeChange([curve("expert 1", [0.3, 0.31])])).toMatch(/as it did at the beginning/);
});

describe("closed experts", () => {
  const told = (...rows: number[][]) => rows.map((gates, i) => ({ timestep: 900 - 100 * i, gates }));

  it("are told with what opens them", () => {
    const closed = told([0.99, 0.009, 0.001], [0.995, 0.005, 0]);
    expect(describeClosed(closed, "gates-are-energies")).toMatch(
      /^Experts 2 and 3 of 3 are closed at every timestep, and hardly trained\. Their bands .*sigmaDivisor/,
    );
    expect(describeClosed(told([0.5, 0.5, 0]), "energies")).toMatch(/^Expert 3 of 3 is closed .* routerTau/);
  });

  it("are none where some timestep opens them, with one expert, and before gates are told", () => {
    expect(describeClosed(told([0.99, 0.01], [1, 0]), "energies")).toBeUndefined();
    expect(describeClosed(told([1]), "energies")).toBeUndefined();
    expect(describeClosed([], "energies")).toBeUndefined();
  });
});
