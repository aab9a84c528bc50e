import { expect, it } from "vitest";
import type { RunRecord } from "./records.js";
import { runSpec } from "./records.js";
import { kendall, longSection } from "./report-long.js";

it("has Kendall's agreement of two orders", () => {
  const order = [1, 2, 3, 4];
  expect(kendall(order.map((value) => [value, 10 * value]))).toBe(1);
  expect(kendall(order.map((value) => [value, -value]))).toBe(-1);
  // One of six pairs is turned around.
  expect(kendall([1, 2, 4, 3].map((value, i) => [i, value]))).toBeCloseTo(4 / 6, 12);
});

it("tells of seeds whose runs of both lengths are all there", () => {
  const settings = { model: "", modelHash: "a", batchSize: 1, drawingSteps: 1 };
  const task = { kind: "style", style: "twemoji" } as const;
  const specs = [0, 1].flatMap((seed) =>
    [5, 20].flatMap((steps) =>
      ["lora", "fera"].map((method) =>
        runSpec({ method, task, seed, steps, learningRate: 1, measures: "error", settings }),
      ),
    ),
  );
  const recordOf = (spec: (typeof specs)[number]): RunRecord => {
    const error = (spec.method === "fera" ? 0.1 : 0.2) / spec.steps;
    const heldOut = { error, byTimestep: [], byBand: {}, names: [{ name: "cat", error }] };
    const rest = { parameters: 1, trainImages: 1, loss: undefined, secondsPerStep: 1, fileBytes: 1, machine: {} };
    return { spec, heldOut, ...rest, seconds: 1, finishedAt: "2026-01-01" };
  };
  const records = new Map(specs.slice(0, -1).map((spec) => [spec.id, recordOf(spec)]));
  const text = longSection(specs, records).join("\n");
  expect(text).toContain("1 seed. Kendall's τ of the two orders is 1.00");
  expect(text).toContain("| FeRA as published | 0.02 | 0.005 |");
  expect(longSection(specs, new Map())).toEqual([]);
});
