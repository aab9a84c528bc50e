import { expect, it } from "vitest";
import { tensor } from "../tensor/tensor.js";
import { ParameterAverage } from "./average.js";

it("follows its parameters, closely at first", () => {
  const parameters = new Map([["weight", tensor([0, 3])]]);
  const average = new ParameterAverage(parameters, 0.15);
  const values = average.values.get("weight")!.data;
  parameters.get("weight")!.data.set([10, 3]);
  // d: 0, then 0.15, since (1 + 1)/(10 + 1) is more.
  for (const [parameter, expected] of [
    [10, 10],
    [20, 20 - 1.5],
  ] as const) {
    parameters.get("weight")!.data[0] = parameter;
    average.update();
    expect(values[0]).toBeCloseTo(expected, 5);
    expect(values[1]).toBe(3);
  }
  expect(average.updates).toBe(2);
});

for (const decay of [-0.1, 1, Number.NaN]) {
  it(`refuses a decay of ${decay}`, () => {
    expect(() => new ParameterAverage(new Map(), decay)).toThrow(`decay must lie in 0 … 1, 1 excluded; got ${decay}`);
  });
}

it("its decay rises as in diffusers' EMAModel, with warm-up and without", () => {
  // EMAModel(decay=0.9, use_ema_warmup=True | False).get_decay(1 …), diffusers 0.42: it counts a step before it asks.
  const decays = (warmup: boolean) => {
    const average = new ParameterAverage(new Map(), 0.9, { warmup });
    return [0, 1, 2, 10, 1000].map((updates) => {
      average.updates = updates;
      return average.nextDecay;
    });
  };
  const golden = {
    true: [0.0, 0.3700394750525634, 0.5192501432308638, 0.7978199917664258, 0.9],
    false: [0.0, 0.18181818181818182, 0.25, 0.55, 0.9],
  };
  for (const warmup of [true, false]) {
    decays(warmup).forEach((decay, i) => {
      expect(decay).toBeCloseTo(golden[`${warmup}`][i]!, 12);
    });
  }
  expect(() => new ParameterAverage(new Map(), 0.9, { power: 0 })).toThrow(/power must be above 0; got 0/);
});
