import { describe, expect, it } from "vitest";
import { hasSkinTone, ICON_STYLES, type IconStyle, isFlag, loadIconSet } from "../../src/training/data/icons.js";
import { captionsOf, checkCaptions, trainingNames } from "./names.js";

const names = trainingNames();

describe("the names that the embedded model learns", () => {
  it("are 600 to 1000, each once, drawn by every set", () => {
    expect(names.length).toBeGreaterThanOrEqual(600);
    expect(names.length).toBeLessThanOrEqual(1000);
    expect(new Set(names).size).toBe(names.length);
    for (const style of Object.keys(ICON_STYLES) as IconStyle[]) {
      const set = loadIconSet(style);
      expect(names.filter((name) => !set.has(name))).toEqual([]);
    }
  });

  it("are no two names of one noto drawing", () => {
    const noto = loadIconSet("noto");
    expect(new Set(names.map((name) => noto.resolve(name))).size).toBe(names.length);
    expect(new Set(names.map((name) => noto.svg(name))).size).toBe(names.length);
  });

  it("hold no skin tones, countries' flags, clock faces or genders", () => {
    expect(names.filter((name) => hasSkinTone(name) || /oclock|thirty|keycap/.test(name))).toEqual([]);
    expect(names.filter((name) => /^(?:man|woman|person)-|-(?:man|woman)(?:-|$)/.test(name))).toEqual([]);
    expect(names.filter(isFlag).sort()).toEqual(["chequered-flag", "pirate-flag", "triangular-flag"]);
  });

  it("have captions that lead to one drawing each", () => {
    expect(() => checkCaptions(names)).not.toThrow();
    expect(captionsOf("closed-mailbox-with-raised-flag")).toEqual(["closed mailbox with raised flag", "mailbox"]);
    expect(() => checkCaptions([...names, "heart"])).toThrow(/"heart" belongs to/);
    expect(() => checkCaptions(["red-apple"])).toThrow(/no trained name/);
  });
});
