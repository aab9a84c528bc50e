import { describe, expect, it } from "vitest";
import { type LearningRateOptions, learningRateSchedule } from "./learning-rate.js";

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
    expect(() => learningRateSchedule({ name: "polynomial" as "linear", learningRate: 1 })).toThrow(/polynomial/);
    expect(() => learningRateSchedule({ learningRate: -1 })).toThrow(/learningRate/);
    expect(() => learningRateSchedule({ learningRate: Number.NaN })).toThrow(/learningRate/);
    expect(() => learningRateSchedule({ learningRate: 1, warmupSteps: 1.5 })).toThrow(/warmupSteps/);
    expect(() => learningRateSchedule({ name: "linear", learningRate: 1 })).toThrow(/totalSteps is required/);
    expect(() => learningRateSchedule({ name: "cosine", learningRate: 1, totalSteps: -1 })).toThrow(/totalSteps/);
    expect(() => learningRateSchedule({ learningRate: 1, warmupSteps: 9, totalSteps: 5 })).toThrow(/must not exceed/);
  });

  it("refuses a step that is none", () => {
    const schedule = learningRateSchedule({ learningRate: 1 });
    for (const step of [-1, 0.5, Number.NaN]) expect(() => schedule(step)).toThrow(/a step must be/);
  });
});
