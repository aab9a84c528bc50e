import { describe, expect, it } from "vitest";
import { balancedRepeats } from "./regularization.js";

describe("balancedRepeats", () => {
  it.each([
    { own: [1, 1, 1], training: 7, expected: [3, 2, 2] },
    { own: [2, 2], training: 10, expected: [5, 5] },
    { own: [1, 1, 1, 1], training: 2, expected: [1, 1, 0, 0] },
    { own: [5], training: 3, expected: [5] },
    { own: [], training: 3, expected: [] },
  ])("repeats $own for $training training images as kohya's loop does", ({ own, training, expected }) => {
    expect(balancedRepeats(own, training)).toEqual(expected);
    // The loop itself: in order, first with the own repeats, then one more each, until there are enough.
    const counts = own.map(() => 0);
    let total = 0;
    for (let round = 0; own.length > 0 && total < training; round++) {
      for (let i = 0; i < own.length && total < training; i++) {
        const more = round === 0 ? own[i]! : 1;
        counts[i]! += more;
        total += more;
      }
    }
    expect(counts).toEqual(expected);
  });
});
