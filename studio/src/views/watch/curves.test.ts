import { describe, expect, it } from "vitest";
import type { MetricsLine } from "../../../../src/studio/protocol.js";
import {
  ALL_TIMESTEPS,
  gateCurves,
  gateTimesteps,
  lossByTimestep,
  lossCurves,
  newestGates,
  plainCurves,
  settingDifferences,
  timestepProfile,
  validationByBand,
  validationByTimestep,
  validationCurves,
} from "./curves.js";

const line = (step: number, rest: object): MetricsLine => ({ step, ...rest }) as MetricsLine;
const run = (lines: MetricsLine[], id = "a") => ({ id, color: "--series-1", lines });

const validation = (loss: number) => ({
  ...{ loss, count: 4, byBand: { low: loss / 4, high: loss / 2 } },
  byTimestep: [
    { from: 0, to: 500, error: loss },
    { from: 500, to: 1000, error: 2 * loss },
  ],
});

describe("curves of the loss", () => {
  it("of one run are each step, the smoothed loss and its terms", () => {
    const lines = [
      line(0, { validation: validation(1) }),
      line(1, { loss: 4, mse: 3, fecl: 1 }),
      line(2, { loss: 2, mse: 2, fecl: 0 }),
    ];
    const curves = lossCurves([run(lines)], 0.5);
    expect(curves.map(({ label, x, y }) => [label, x, y])).toEqual([
      ["each step", [1, 2], [4, 2]],
      ["loss, smoothed", [1, 2], [4, (0.5 * 2 + 0.5 * 0.5 * 4) / 0.75]],
      ["mse", [1, 2], [3, (0.5 * 2 + 0.25 * 3) / 0.75]],
      ["fecl", [1, 2], [1, 0.25 / 0.75]],
    ]);
  });

  it("of several runs are their smoothed losses, in their colours", () => {
    const curves = lossCurves(
      [run([line(1, { loss: 1 })]), { ...run([line(1, { loss: 2 })], "b"), color: "--series-2" }],
      0,
    );
    expect(curves.map(({ label, color, y }) => [label, color, y])).toEqual([
      ["a", "--series-1", [1]],
      ["b", "--series-2", [2]],
    ]);
  });

  it("by timestep are means of the images of a step within a part of the timesteps", () => {
    const lines = [
      line(1, { timesteps: [10, 20, 900], sampleLosses: [1, 3, 8] }),
      line(2, { timesteps: [30, 40], sampleLosses: [5, 7] }),
    ];
    expect(lossByTimestep(run(lines), 0).map(({ label, x, y }) => [label, x, y])).toEqual([
      ["0–249", [1, 2], [2, 6]],
      ["750–999", [1], [8]],
    ]);
  });

  it("over timesteps are of the newest steps alone", () => {
    const lines = [
      line(1, { timesteps: [10], sampleLosses: [100] }),
      line(2, { timesteps: [10, 999], sampleLosses: [1, 4] }),
      line(3, { timesteps: [20], sampleLosses: [3] }),
    ];
    const [curve] = timestepProfile([run(lines)], 2);
    expect(curve).toMatchObject({ x: [25, 975], y: [2, 4] });
  });
});

describe("curves of validations", () => {
  const validated = run([
    line(0, { validation: validation(4) }),
    line(1, { loss: 1 }),
    line(5, { validation: validation(2) }),
  ]);

  it("are told by step, by timestep and by band", () => {
    expect(validationCurves([validated])[0]).toMatchObject({ x: [0, 5], y: [4, 2] });
    expect(validationByTimestep(validated).map(({ label, y }) => [label, y])).toEqual([
      ["0–499", [4, 2]],
      ["500–999", [8, 4]],
    ]);
    expect(validationByBand(validated).map(({ label, y }) => [label, y])).toEqual([
      ["low", [1, 0.5]],
      ["high", [2, 1]],
    ]);
  });

  it("are none without validations", () => {
    const plain = run([line(1, { loss: 1 })]);
    expect([validationCurves([plain]), validationByTimestep(plain), validationByBand(plain)]).toEqual([[], [], []]);
  });
});

it("a plain curve leaves out steps that do not tell the number", () => {
  const lines = [line(0, {}), line(1, { learningRate: 1e-4 }), line(2, { learningRate: 2e-4 })];
  const [curve] = plainCurves([run(lines)], "learning rate", ({ learningRate }) => learningRate);
  expect(curve).toMatchObject({ label: "learning rate", x: [1, 2], y: [1e-4, 2e-4] });
});

it("gates are told at a timestep, or as the mean over all", () => {
  const gates = (first: number) => [
    { timestep: 900, gates: [first, 1 - first] },
    { timestep: 100, gates: [0, 1] },
  ];
  const routed = run([line(0, { gates: gates(0.5) }), line(4, { loss: 1 }), line(8, { gates: gates(1) })]);
  expect(gateTimesteps(routed)).toEqual([900, 100]);
  expect(gateCurves(routed, 900).map(({ x, y }) => [x, y])).toEqual([
    [
      [0, 8],
      [0.5, 1],
    ],
    [
      [0, 8],
      [0.5, 0],
    ],
  ]);
  expect(gateCurves(routed, ALL_TIMESTEPS)[0]!.y).toEqual([0.25, 0.5]);
  expect(newestGates(routed)).toEqual(gates(1));
  expect(newestGates(run([line(1, {})]))).toEqual([]);
});

it("settings that differ are told, with a dash where there is none", () => {
  const rows = settingDifferences([
    { settings: { rank: 4, adapter: "fera", prompts: ["a"] } },
    { settings: { rank: 8, adapter: "fera", prompts: ["b"], ema: 0.9 } },
  ]);
  expect(rows).toEqual([
    { name: "ema", values: ["–", "0.9"] },
    { name: "prompts", values: ['["a"]', '["b"]'] },
    { name: "rank", values: ["4", "8"] },
  ]);
});
