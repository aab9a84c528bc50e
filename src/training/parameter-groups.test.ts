import { describe, expect, it } from "vitest";
import { rateFactors } from "./parameter-groups.js";

const NAMES = [
  "router.0.weight",
  "up_blocks.1.attn1.to_q.down",
  "up_blocks.10.attn1.to_q.down",
  "mid_block.attn2.to_k.up",
];
const factors = (groups: Parameters<typeof rateFactors>[1]) => {
  const rateOf = rateFactors(NAMES, groups);
  return rateOf && NAMES.map(rateOf);
};

describe("rateFactors", () => {
  it("takes whole parts of names, any text for *, and the last pattern that fits", () => {
    expect(factors({ blockLr: ["up_blocks.1=0.5"] })).toEqual([1, 0.5, 1, 1]);
    expect(factors({ blockLr: ["up_blocks.*=2", "to_q=3"] })).toEqual([1, 3, 3, 1]);
    expect(factors({ blockLr: ["attn*=0", "up_blocks.10 = 4"] })).toEqual([1, 0, 4, 0]);
  });

  it("multiplies the router's with its own, and gives none where all are 1", () => {
    expect(factors({ routerLr: 0.1 })).toEqual([0.1, 1, 1, 1]);
    expect(factors({ blockLr: ["router=2"], routerLr: 0 })).toEqual([0, 1, 1, 1]);
    expect(factors({ blockLr: ["mid_block=1"] })).toBeUndefined();
    expect(factors({})).toBeUndefined();
  });

  it("refuses what it cannot read, what fits nothing, and to train nothing", () => {
    for (const text of ["up_blocks", "=1", "a=", "a=b", "a=-1", "a=Infinity"]) {
      expect(() => factors({ blockLr: [text] }), text).toThrow(/blockLr: must be PATTERN=FACTOR .*; got/);
    }
    expect(() => factors({ blockLr: ["down_blocks=2"] })).toThrow(/"down_blocks" fits the name of no trained tensor/);
    expect(() => factors({ blockLr: ["*=0"] })).toThrow(/nothing would be trained/);
    expect(() => rateFactors(["a.down"], { routerLr: 0.5 })).toThrow(/no router/);
  });
});
