import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type LearningRateOptions, learningRateSchedule, stepsOf } from "./learning-rate.js";

const rates = (options: LearningRateOptions, steps: number[]) => {
  const schedule = learningRateSchedule(options);
  return steps.map((step) => Number(schedule(step).toFixed(12)));
};

describe("learningRateSchedule", () => {
  it("stays constant", () => {
    expect(rates({ learningRate: 1e-4 }, [0, 1, 1e6])).toEqual([1e-4, 1e-4, 1e-4]);
  });

  it("rises from 0 over the warm-up", () => {
    const options = { learningRate: 0.4, warmupSteps: 4 };
    expect(rates(options, [0, 1, 2, 3, 4, 9])).toEqual([0, 0.1, 0.2, 0.3, 0.4, 0.4]);
  });

  it("falls linearly to 0 and stays there", () => {
    const options = { name: "linear", learningRate: 1, warmupSteps: 2, totalSteps: 6 } as const;
    expect(rates(options, [0, 1, 2, 3, 4, 5, 6, 7])).toEqual([0, 0.5, 1, 0.75, 0.5, 0.25, 0, 0]);
  });

  it("falls along half a cosine and stays at 0", () => {
    const options = { name: "cosine", learningRate: 2, warmupSteps: 1, totalSteps: 5 } as const;
    expect(rates(options, [1, 2, 3, 5, 9])).toEqual([2, Number((1 + Math.SQRT1_2).toFixed(12)), 1, 0, 0]);
  });

  it("can be all warm-up", () => {
    const options = { name: "cosine", learningRate: 1, warmupSteps: 3, totalSteps: 3 } as const;
    expect(rates(options, [2, 3, 4])).toEqual([Number((2 / 3).toFixed(12)), 1, 0]);
  });

  it("refuses options out of their range, by name", () => {
    expect(() => learningRateSchedule({ name: "step" as "linear", learningRate: 1 })).toThrow(/got "step"/);
    expect(() => learningRateSchedule({ learningRate: -1 })).toThrow(/learningRate/);
    expect(() => learningRateSchedule({ learningRate: Number.NaN })).toThrow(/learningRate/);
    expect(() => learningRateSchedule({ learningRate: 1, warmupSteps: 1.5 })).toThrow(/warmupSteps/);
    expect(() => learningRateSchedule({ name: "linear", learningRate: 1 })).toThrow(/totalSteps is required/);
    expect(() => learningRateSchedule({ name: "cosine", learningRate: 1, totalSteps: -1 })).toThrow(/totalSteps/);
    expect(() => learningRateSchedule({ learningRate: 1, warmupSteps: 9, totalSteps: 5 })).toThrow(/must not exceed/);
  });

  it("gives diffusers' rates at every step", () => {
    const { learningRate, totalSteps, cases } = JSON.parse(readFileSync("test/reference/learning-rates.json", "utf8"));
    expect(cases.length).toBeGreaterThan(8);
    for (const { schedule, diffusers, warmupSteps, num_cycles: restarts, power, rates: wanted } of cases) {
      const rateOf = learningRateSchedule({
        ...{ name: schedule, learningRate, totalSteps, warmupSteps },
        ...(restarts !== undefined && { restarts }),
        ...(power !== undefined && { power }),
      });
      // Beyond the last step diffusers' cosine rises again.
      wanted.slice(0, totalSteps + 1).forEach((rate: number, step: number) => {
        expect(rateOf(step), `${diffusers}, step ${step}`).toBeCloseTo(rate, 15);
      });
    }
  });

  it("falls by REX's formula, late and steeply", () => {
    const options = { name: "rex", learningRate: 3, totalSteps: 4 } as const;
    expect(rates(options, [0, 1, 2, 3, 4, 9])).toEqual(
      [3, (3 * 0.75) / 0.875, (3 * 0.5) / 0.75, (3 * 0.25) / 0.625, 0, 0].map((rate) => Number(rate.toFixed(12))),
    );
  });

  it("stays constant until the steps in which it decays", () => {
    const options = { name: "linear", learningRate: 1, warmupSteps: 2, decaySteps: 4, totalSteps: 10 } as const;
    expect(rates(options, [0, 1, 2, 5, 6, 7, 8, 9, 10])).toEqual([0, 0.5, 1, 1, 1, 0.75, 0.5, 0.25, 0]);
    expect(() => learningRateSchedule({ ...options, decaySteps: 9 })).toThrow(/warmupSteps=2 and decaySteps=9/);
    expect(() => learningRateSchedule({ learningRate: 1, decaySteps: 1 })).toThrow(/decaySteps needs a schedule/);
  });

  it("takes steps as a number or as a share of all", () => {
    expect([stepsOf("warmup", 0.05, 1000), stepsOf("warmup", 1, 1000), stepsOf("warmup", 0, 10)]).toEqual([50, 1, 0]);
    expect(() => stepsOf("warmup", 1.5, 10)).toThrow(/warmup must be an integer/);
  });

  it("refuses a step that is none", () => {
    const schedule = learningRateSchedule({ learningRate: 1 });
    for (const step of [-1, 0.5, Number.NaN]) expect(() => schedule(step)).toThrow(/a step must be/);
  });
});
