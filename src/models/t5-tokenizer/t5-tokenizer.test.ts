// Token ids against transformers' (test/parity/make-t5-tokenizer-golden.py), and files that are none.

import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import "../../storage/node.js";
import { charsmapNormalizer } from "./charsmap.js";
import { parseSentencePiece } from "./sentencepiece-file.js";
import { T5Tokenizer } from "./t5-tokenizer.js";
import { Unigram } from "./unigram.js";

const FOLDER = "test/reference/t5-tokenizer";
const clip = JSON.parse(await readFile("test/reference/clip-tokenizer/expected.json", "utf8"));
const prompts = clip.prompts as string[];
const expected = JSON.parse(await readFile(`${FOLDER}/expected.json`, "utf8"));
const spiece = new Uint8Array(await readFile(`${FOLDER}/spiece/spiece.model`));

describe.each(["spiece", "json"])("the tokenizer folder %s", (name) => {
  it(`gives transformers' ids for all ${prompts.length} prompts`, async () => {
    const tokenizer = await T5Tokenizer.fromPretrained(`${FOLDER}/${name}`, { subfolder: "" });
    const different = prompts.flatMap((prompt, index) => {
      const { ids, length } = tokenizer.encode(prompt, { maxLength: 2000 });
      const [ours, theirs] = [ids.slice(0, length).join(" "), expected[name].ids[index].join(" ")];
      return ours === theirs ? [] : [{ prompt, ours, theirs }];
    });
    expect(different).toEqual([]);
    expect(tokenizer.vocabSize).toBe(expected[name].size);
  });

  it("cuts and pads as transformers does, and names what did not fit", async () => {
    const tokenizer = await T5Tokenizer.fromPretrained(`${FOLDER}/${name}`, { subfolder: "" });
    const maxLength = expected.padded_length as number;
    for (const [i, chosen] of (clip.padded_prompts as number[]).entries()) {
      expect(tokenizer.encode(prompts[chosen]!, { maxLength }).ids).toEqual(expected[name].padded[i]);
    }
    const { overflow, length } = tokenizer.encode("a photo of a black cat and a dog", { maxLength: 6 });
    expect("a photo of a black cat and a dog".endsWith(overflow!)).toBe(true);
    expect(length).toBe(6);
    expect(tokenizer.encode("a cat").overflow).toBeUndefined();
  });
});

it("text of ids is that of the prompt, without special tokens", async () => {
  const tokenizer = await T5Tokenizer.fromPretrained(`${FOLDER}/json`, { subfolder: "" });
  expect(tokenizer.decode(tokenizer.encode("a  cat <extra_id_3> on a mat", { maxLength: 40 }).ids)).toBe(
    "a cat on a mat",
  );
});

describe("a spiece.model that is none is refused", () => {
  const parse = (bytes: Uint8Array) => () => parseSentencePiece(bytes, "x/spiece.model");

  it("wherever it is cut off", () => {
    const { length } = parse(spiece)().pieces;
    expect(length).toBe(400);
    for (let end = 1; end < spiece.length; end += 97) {
      // A cut between fields leaves a shorter file of the same form.
      try {
        expect(parse(spiece.slice(0, end))().pieces.length).toBeLessThanOrEqual(length);
      } catch (error) {
        expect((error as Error).message).toMatch(/^x\/spiece.model: is no SentencePiece model/);
      }
    }
  });

  it("whatever bytes are changed", async () => {
    for (let at = 0; at < spiece.length; at += 131) {
      const broken = spiece.slice();
      broken[at] = broken[at]! ^ 0xff;
      try {
        const { pieces, unknownId, charsmap } = parse(broken)();
        new Unigram(pieces, unknownId, "x").encode("▁cat");
        charsmapNormalizer(charsmap, "x")("Ångström ½ é");
      } catch (error) {
        expect((error as Error).name).toMatch(/FormatError|ConfigError/);
      }
    }
  });

  it.each([
    ["text", new TextEncoder().encode("version https://git-lfs"), /is no SentencePiece model/],
    ["nothing", new Uint8Array(), /has no pieces/],
    ["another kind of model", Uint8Array.of(0x12, 2, 0x18, 2), /model_type must be 1 \(unigram\); got 2/],
    ["pieces for bytes", Uint8Array.of(0x0a, 2, 0x18, 6), /byte_fallback/],
  ])("%s", (_, bytes, message) => expect(parse(bytes)).toThrow(message));
});

describe("refuses", () => {
  it("maps of characters without a trie", () => {
    expect(() => charsmapNormalizer(Uint8Array.of(1, 2, 3), "x")).toThrow(/has no trie/);
    expect(() => charsmapNormalizer(Uint8Array.of(8, 0, 0, 0, 1, 2, 3, 4), "x")).toThrow(/has no trie/);
  });

  it("pieces that are none", () => {
    expect(() => new Unigram([["a", Number.NaN]], 0, "x")).toThrow(/piece 0 must be a text with a finite score/);
    expect(() => new Unigram([["a", 0]], 1, "x")).toThrow(/unk_id must be one of the 1 pieces; got 1/);
    expect(() => new Unigram([["a".repeat(300), 0]], 0, "x")).toThrow(/256 characters at most; one has 300/);
  });

  const make = (change: object) => () =>
    new T5Tokenizer({ source: "x", ...parseSentencePiece(spiece, "x"), added: new Map(), ...change });
  it.each([
    [{ config: { model_max_length: 1 } }, /model_max_length must be an integer from 2 to 65536; got 1/],
    [{ config: { eos_token: "<end>" } }, /the eos_token "<end>" is no piece/],
    [{ added: new Map([["<x>", 5]]) }, /the added token "<x>" has the id 5/],
  ])("%j", (change, message) => expect(make(change)).toThrow(message));

  it("folders of other tokenizers, and prompts of megabytes", async () => {
    await expect(T5Tokenizer.fromPretrained("test/reference/clip-tokenizer/sd1", { subfolder: "" })).rejects.toThrow(
      /tokenizer_class must be T5Tokenizer or T5TokenizerFast; got "CLIPTokenizer"/,
    );
    await expect(T5Tokenizer.fromPretrained(FOLDER)).rejects.toThrow(/no such folder/);
    expect(() => make({})().encode("a".repeat(70_000))).toThrow(/65536 characters at most/);
  });
});
