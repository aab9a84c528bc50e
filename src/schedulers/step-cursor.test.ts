import { describe, expect, it } from "vitest";
import { ConfigError } from "../errors.js";
import { StepCursor } from "./step-cursor.js";

const TIMESTEPS = [9, 5, 5, 5, 1];

describe("StepCursor", () => {
  it("starts anywhere and then goes on in order, through equal timesteps too", () => {
    const cursor = new StepCursor("test", TIMESTEPS);
    expect([9, 5, 5, 5, 1].map((t) => cursor.advance(t))).toEqual([0, 1, 2, 3, 4]);
    expect(() => cursor.advance(1)).toThrow(/run is over/);
    const late = new StepCursor("test", TIMESTEPS);
    expect(late.advance(1)).toBe(4);
  });

  it("starts in the midst of equal timesteps where it is told to", () => {
    const cursor = new StepCursor("test", TIMESTEPS);
    cursor.begin(2);
    expect(cursor.find(5)).toBe(2);
    expect([5, 5, 1].map((t) => cursor.advance(t))).toEqual([2, 3, 4]);
  });

  it("refuses a start outside, a timestep that is none, and one that is not due", () => {
    const cursor = new StepCursor("test", TIMESTEPS);
    for (const index of [-1, 5, 0.5, Number.NaN]) expect(() => cursor.begin(index)).toThrow(ConfigError);
    expect(() => cursor.find(4)).toThrow(/t=4 is none of the timesteps/);
    cursor.advance(9);
    expect(() => cursor.advance(1)).toThrow(/due is 5; got 1/);
  });
});
