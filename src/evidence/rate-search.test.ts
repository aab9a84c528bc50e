import { expect, it } from "vitest";
import { NotYet } from "./not-yet.js";
import { bestMultiple } from "./rate-search.js";

/** A bowl over the rate's logarithm. */
const bowl = (lowest: number) => (multiple: number) => Math.log(multiple / lowest) ** 2;

it("goes to the lowest error on either side, and between its neighbours at last", () => {
  expect(bestMultiple(bowl(1))).toBe(1);
  expect(bestMultiple(bowl(0.75))).toBe(0.7);
  expect(bestMultiple(bowl(1.4))).toBe(1.4);
  expect(bestMultiple(bowl(8))).toBe(8);
  expect(bestMultiple(bowl(0.18))).toBeCloseTo(0.175, 12);
});

it("asks for all errors of a step before it waits for one", () => {
  const asked: number[] = [];
  const unknown = (multiple: number) => {
    asked.push(multiple);
    if (multiple !== 1) throw new NotYet("errors");
    return 1;
  };
  expect(() => bestMultiple(unknown)).toThrow(NotYet);
  expect(asked).toEqual([1, 0.5, 2]);
});

it("stays where nothing is known to be better", () => {
  expect(bestMultiple(() => Number.POSITIVE_INFINITY)).toBe(1);
  expect(bestMultiple(() => 1)).toBe(1);
});
