import { describe, expect, it } from "vitest";
import { ConfigError } from "../../src/errors.js";
import { captionOf, loadIconSet } from "../../src/training/data/icons.js";
import { trainClipVocabulary } from "./bpe-trainer.js";

describe("trainClipVocabulary", () => {
  it("lays the vocabulary out as CLIP does: bytes, word-ending bytes, merges, start, end", () => {
    const { vocab, merges } = trainClipVocabulary(["cat cat cats", "hat"], { size: 517 });
    expect(merges).toEqual([
      ["a", "t</w>"],
      ["c", "at</w>"],
    ]);
    const tokens = Object.entries(vocab).sort(([, a], [, b]) => a - b);
    expect(tokens.map(([, id]) => id)).toEqual(Array.from({ length: 516 }, (_, id) => id));
    expect([vocab["!"], vocab["~"], vocab["ÿ</w>"], vocab["!</w>"], vocab["at</w>"]]).toEqual([0, 93, 443, 256, 512]);
    expect([vocab["<|startoftext|>"], vocab["<|endoftext|>"]]).toEqual([514, 515]);
  });

  it("stops when no pair occurs twice", () => {
    expect(trainClipVocabulary(["ab cd"], { size: 1000 }).merges).toEqual([]);
  });

  it("depends on the words, not on the order of the texts", () => {
    const texts = loadIconSet("noto").names.slice(0, 800).map(captionOf);
    expect(trainClipVocabulary(texts.toReversed(), { size: 700 })).toEqual(trainClipVocabulary(texts, { size: 700 }));
  });

  it("picks the most frequent pair of all words at every step", () => {
    const texts = loadIconSet("noto").names.slice(0, 300).map(captionOf);
    const { merges } = trainClipVocabulary(texts, { size: 560 });
    const words = texts.flatMap((text) => text.split(" ")).filter((word) => /^[a-z]+$/.test(word));
    let split = words.map((word) => [...word.slice(0, -1), `${word.at(-1)}</w>`]);
    for (const [left, right] of merges) {
      const counts = new Map<string, number>();
      for (const symbols of split) {
        for (let i = 1; i < symbols.length; i++) {
          const pair = `${symbols[i - 1]} ${symbols[i]}`;
          counts.set(pair, (counts.get(pair) ?? 0) + 1);
        }
      }
      expect(counts.get(`${left} ${right}`)).toBe(Math.max(...counts.values()));
      split = split.map((symbols) =>
        ` ${symbols.join(" ")} `.replaceAll(` ${left} ${right} `, ` ${left}${right} `).trim().split(" "),
      );
    }
  });

  it("learns byte merges inside accented letters and emoji", () => {
    const { vocab } = trainClipVocabulary(["café café", "🚀 🚀"], { size: 600 });
    expect(vocab["cafÃ©</w>"]).toBeDefined();
    expect(vocab["ðŁļĢ</w>"]).toBeDefined();
  });

  it("refuses a size without room for the bytes", () => {
    expect(() => trainClipVocabulary(["cat"], { size: 513 })).toThrow(ConfigError);
    expect(() => trainClipVocabulary(["cat"], { size: 600.5 })).toThrow(ConfigError);
  });
});
