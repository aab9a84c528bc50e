import { describe, expect, it } from "vitest";
import { Generator } from "../../tensor/random.js";
import { isVaried, variedCaption } from "./varied-caption.js";

const CAPTION = "sks dog, sitting,  on grass, sunny, 4k";

describe("variedCaption", () => {
  it("shuffles the tags after the kept ones, and loses none", () => {
    const seen = new Set<string>();
    const generator = new Generator(0);
    for (let i = 0; i < 200; i++) {
      const varied = variedCaption(CAPTION, { shuffle: true, keepTokens: 2 }, generator);
      expect(varied.startsWith("sks dog, sitting, ")).toBe(true);
      expect(varied.split(", ").sort()).toEqual(["4k", "on grass", "sitting", "sks dog", "sunny"]);
      seen.add(varied);
    }
    expect(seen.size).toBe(6);
  });

  it("leaves out the share of tags asked for, never a kept one", () => {
    const generator = new Generator(1);
    let left = 0;
    for (let i = 0; i < 1000; i++) {
      const tags = variedCaption(CAPTION, { tagDropout: 0.3, keepTokens: 1 }, generator).split(", ");
      expect(tags[0]).toBe("sks dog");
      left += tags.length - 1;
    }
    expect(left / 4000).toBeCloseTo(0.7, 1);
  });

  it("is the same for the same seed, and leaves captions alone where nothing varies", () => {
    const draw = () => variedCaption(CAPTION, { shuffle: true, tagDropout: 0.5 }, new Generator(7));
    expect(draw()).toBe(draw());
    expect(variedCaption(CAPTION, { keepTokens: 3 }, new Generator(0))).toBe(CAPTION);
    expect([isVaried({}), isVaried({ shuffle: true }), isVaried({ tagDropout: 0.1 })]).toEqual([false, true, true]);
    expect(variedCaption("a | b", { shuffle: true, separator: "|", keepTokens: 1 }, new Generator(0))).toBe("a|b");
  });
});
