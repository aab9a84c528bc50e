import { describe, expect, it } from "vitest";
import { clipByteSymbols, splitClipWords } from "./clip-words.js";

describe("splitClipWords", () => {
  it("lowers letter by letter, splits digits one by one, and keeps English contractions whole", () => {
    expect(splitClipWords("ΟΔΟΣ It's 12!?")).toEqual(["οδοσ", "it", "'s", "1", "2", "!?"]);
  });

  it("splits at Unicode's white space: at U+0085, not at U+FEFF", () => {
    expect(splitClipWords("!\u0085!\u3000!\ufeff!")).toEqual(["!", "!", "!\ufeff!"]);
  });
});

describe("clipByteSymbols", () => {
  it("gives every byte its own visible symbol", () => {
    const pairs = clipByteSymbols();
    expect(new Set(pairs.map(([byte]) => byte)).size).toBe(256);
    expect(new Set(pairs.map(([, symbol]) => symbol)).size).toBe(256);
    expect(new Map(pairs).get(0x20)).toBe("Ġ");
    expect(new Map(pairs).get(0x41)).toBe("A");
  });
});
