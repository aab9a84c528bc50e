import { expect, it } from "vitest";
import { tensor } from "../tensor/tensor.js";
import { ParameterAverage } from "./average.js";

it("follows its parameters, closely at first", () => {
  const parameters = new Map([["weight", tensor([0, 3])]]);
  const average = new ParameterAverage(parameters, 0.15);
  const values = average.values.get("weight")!.data;
  parameters.get("weight")!.data.set([10, 3]);
  // d: (1 + 0)/(10 + 0), then 0.15, since (1 + 1)/(10 + 1) is more.
  for (const expected of [9, 9 + 0.85]) {
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
