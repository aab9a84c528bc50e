import { expect, it } from "vitest";
import { TimeLeft } from "./time-left.js";

it("counts what is still to come: steps, validations, drawings and checkpoints, each as often and as long as it is", () => {
  const time = new TimeLeft(100, {
    validation: { every: 30, atEnd: true },
    drawing: { every: 50, atEnd: true },
    checkpoint: { every: 0, atEnd: true },
    never: { every: 0, atEnd: false },
  });
  expect(time.after(0)).toBeUndefined();
  // The first step compiles; the pace is the median.
  for (const seconds of [60, 2, 2, 2, 2]) time.stepTook(seconds);
  expect(time.after(10)).toBe(180);
  time.tookBetween("validation", 10);
  time.tookBetween("validation", 20);
  time.tookBetween("never", 1000);
  // After steps 30, 60, 90 and 100.
  expect(time.after(10)).toBe(180 + 4 * 15);
  expect(time.after(30)).toBe(140 + 3 * 15);
  time.tookBetween("drawing", 7);
  time.tookBetween("checkpoint", 1);
  expect(time.after(50)).toBe(100 + 3 * 15 + 7 + 1);
  expect(time.after(100)).toBe(0);
});
