import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { trainClipVocabulary } from "../../../examples/icons/bpe-trainer.js";
import { ConfigError, FormatError } from "../../errors.js";
import "../../storage/node.js";
import { FileStorage } from "../../storage/file-storage.js";
import { CLIPTokenizer } from "./clip-tokenizer.js";
import { readClipTokenizer } from "./clip-tokenizer-folder.js";
import { writeClipTokenizer } from "./write-clip-tokenizer.js";

const CAPTIONS = [
  "cat with wry smile",
  "cat face",
  "black cat",
  "grinning cat with smiling eyes",
  "smiling face with heart eyes",
  "face with tears of joy",
  "man juggling",
  "woman juggling",
  "café au lait",
];

// The ids that CLIPTokenizerFast of transformers 4.46.3 (tokenizers 0.20.3) gives for the folder that beforeAll writes,
// without the padding.
const GOLDEN: [string, number[]][] = [
  ["cat with wry smile", [537, 516, 520, 86, 81, 344, 524, 75, 324, 538]],
  ["  Grinning\tCAT ", [537, 70, 81, 512, 77, 514, 516, 538]],
  ["Café", [537, 513, 69, 127, 358, 538]],
  ["cafe\u0301 naïve", [537, 513, 69, 127, 358, 77, 64, 127, 107, 85, 324, 538]],
  ["don't SMILE!", [537, 67, 78, 333, 6, 339, 524, 75, 324, 256, 538]],
  ["🚀 cat", [537, 172, 253, 248, 478, 516, 538]],
  ["n°5 12", [537, 333, 126, 364, 276, 272, 273, 538]],
  ["", [537, 538]],
  ["<|endoftext|>cat", [537, 538, 516, 538]],
];

const vocabulary = trainClipVocabulary(CAPTIONS, { size: 560 });
let root: string;
let sd1: CLIPTokenizer;

beforeAll(async () => {
  root = await mkdtemp(path.join(tmpdir(), "fera-clip-"));
  await writeClipTokenizer(path.join(root, "sd1", "tokenizer"), { ...vocabulary, maxLength: 16 });
  await writeClipTokenizer(path.join(root, "sd2", "tokenizer"), { ...vocabulary, maxLength: 16, padToken: "!" });
  sd1 = await CLIPTokenizer.fromPretrained(path.join(root, "sd1"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

/** A copy of the sd1 folder with some files replaced or removed (null). */
async function variant(name: string, files: Record<string, string | null>): Promise<string> {
  const dir = path.join(root, name, "tokenizer");
  await writeClipTokenizer(dir, { ...vocabulary, maxLength: 16 });
  for (const [file, text] of Object.entries(files)) {
    if (text === null) await rm(path.join(dir, file));
    else await writeFile(path.join(dir, file), text);
  }
  return path.join(root, name);
}

describe("CLIPTokenizer", () => {
  it.each(GOLDEN)("gives the ids of transformers for %j", (text, expected) => {
    const { ids, length, overflow } = sd1.encode(text);
    expect(ids).toEqual([...expected, ...new Array(16 - expected.length).fill(538)]);
    expect(length).toBe(expected.length);
    expect(overflow).toBeUndefined();
  });

  it("pads with, and recognizes in text, the pad token of the special tokens map", async () => {
    const sd2 = await CLIPTokenizer.fromPretrained(path.join(root, "sd2"));
    expect(sd2.padTokenId).toBe(0);
    expect(sd2.encode("cat!").ids).toEqual([537, 516, 0, 538, ...new Array(12).fill(0)]);
    expect(sd2.encode("man juggling").ids).toEqual([537, 535, 534, 538, ...new Array(12).fill(0)]);
  });

  it("lets the special tokens map win over an older config, and the config over it in newer folders", async () => {
    const config = JSON.parse(await readFile(path.join(root, "sd1", "tokenizer", "tokenizer_config.json"), "utf8"));
    const map = JSON.stringify({ pad_token: { content: "!" } });
    const older = await variant("older", { "special_tokens_map.json": map });
    expect((await CLIPTokenizer.fromPretrained(older)).padTokenId).toBe(0);
    const newer = await variant("newer", {
      "special_tokens_map.json": map,
      "tokenizer_config.json": JSON.stringify({
        ...config,
        added_tokens_decoder: { 538: { content: "<|endoftext|>", normalized: true, special: true } },
      }),
    });
    expect((await CLIPTokenizer.fromPretrained(newer)).padTokenId).toBe(538);
  });

  it("reads tokenizer.json when there is one", async () => {
    const special = { lstrip: false, rstrip: false, single_word: false, special: true, normalized: false };
    const tokenizer = {
      version: "1.0",
      added_tokens: [
        { id: 537, content: "<|startoftext|>", ...special },
        { id: 538, content: "<|endoftext|>", ...special },
      ],
      normalizer: {
        type: "Sequence",
        normalizers: [
          { type: "NFC" },
          { type: "Replace", pattern: { Regex: "\\s+" }, content: " " },
          { type: "Lowercase" },
        ],
      },
      pre_tokenizer: {
        type: "Sequence",
        pretokenizers: [
          {
            type: "Split",
            pattern: { Regex: "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+" },
            behavior: "Removed",
            invert: true,
          },
          { type: "ByteLevel", add_prefix_space: false, trim_offsets: true },
        ],
      },
      post_processor: {
        type: "RobertaProcessing",
        sep: ["<|endoftext|>", 538],
        cls: ["<|startoftext|>", 537],
        trim_offsets: false,
        add_prefix_space: false,
      },
      decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true },
      model: {
        type: "BPE",
        unk_token: "<|endoftext|>",
        continuing_subword_prefix: "",
        end_of_word_suffix: "</w>",
        fuse_unk: false,
        vocab: vocabulary.vocab,
        merges: vocabulary.merges.map((pair) => pair.join(" ")),
      },
    };
    const dir = await variant("fast", {
      "vocab.json": null,
      "merges.txt": null,
      "tokenizer.json": JSON.stringify(tokenizer),
      "special_tokens_map.json": JSON.stringify({ pad_token: "!" }),
    });
    const fast = await CLIPTokenizer.fromPretrained(dir);
    for (const text of ["cat with wry smile", "Café au lait", "🚀 don't"]) {
      expect(fast.encode(text).ids.filter((id) => id !== 0)).toEqual(
        sd1.encode(text).ids.slice(0, sd1.encode(text).length),
      );
    }
    expect(fast.encode("cat!").ids.slice(0, 5)).toEqual([537, 516, 0, 538, 0]);
  });

  it("cuts long prompts and names what did not fit", () => {
    const { ids, length, overflow } = sd1.encode(`${"cat ".repeat(14)}Café au lait`);
    expect(ids).toEqual([537, ...new Array(14).fill(516), 538]);
    expect(length).toBe(16);
    expect(overflow).toBe("café au lait");
    expect(sd1.encode("cat ".repeat(14)).overflow).toBeUndefined();
  });

  it("encodes a batch into one int64 tensor", () => {
    const { ids, lengths, overflows } = sd1.encodeBatch(["cat", "face ".repeat(20)]);
    expect(ids.shape).toEqual([2, 16]);
    expect(Array.from(ids.data.subarray(0, 4))).toEqual([537n, 516n, 538n, 538n]);
    expect(lengths).toEqual([3, 16]);
    expect(overflows).toEqual([undefined, "face face face face face face"]);
  });

  it("decodes what it encodes", () => {
    for (const text of [...CAPTIONS, "naïve 🚀"]) expect(sd1.decode(sd1.encode(text).ids)).toBe(text);
  });

  it("counts the rows that a token embedding needs", () => {
    expect(sd1.vocabSize).toBe(539);
    expect(sd1.maxLength).toBe(16);
  });

  it("finds additional special tokens that the vocabulary has, and refuses those without an id", async () => {
    const map = JSON.stringify({ additional_special_tokens: ["cat</w>"] });
    const tokenizer = await CLIPTokenizer.fromPretrained(
      await variant("additional", { "special_tokens_map.json": map }),
    );
    expect(tokenizer.encode("a cat</w>cat").ids.slice(0, 5)).toEqual([537, 320, 516, 516, 538]);
    const without = await variant("without-id", {
      "special_tokens_map.json": JSON.stringify({ additional_special_tokens: [{ content: "<other>" }] }),
    });
    await expect(CLIPTokenizer.fromPretrained(without)).rejects.toThrow(/special token .*<other>.* has no id/);
  });

  it("recognizes added tokens of textual inversion", async () => {
    const dir = await variant("inversion", { "added_tokens.json": JSON.stringify({ "<my-style>": 539 }) });
    const tokenizer = await CLIPTokenizer.fromPretrained(dir);
    expect(tokenizer.encode("cat <my-style>").ids.slice(0, 4)).toEqual([537, 516, 539, 538]);
    expect(tokenizer.vocabSize).toBe(540);
  });

  it("takes 77 tokens when the configuration names no length", async () => {
    const dir = await variant("endless", { "tokenizer_config.json": JSON.stringify({ model_max_length: 1e30 }) });
    expect((await CLIPTokenizer.fromPretrained(dir)).maxLength).toBe(77);
  });

  it("refuses folders that hold no readable CLIP tokenizer, by name", async () => {
    const open = async (name: string, files: Record<string, string | null>) =>
      CLIPTokenizer.fromPretrained(await variant(name, files));
    await expect(CLIPTokenizer.fromPretrained(path.join(root, "nowhere"))).rejects.toThrow(/no such folder/);
    await expect(CLIPTokenizer.fromPretrained(path.join(root, "sd1"), { subfolder: "tokenizer_2" })).rejects.toThrow(
      FormatError,
    );
    await expect(open("no-vocab", { "vocab.json": null })).rejects.toThrow(/needs tokenizer.json, or vocab.json/);
    await expect(open("bad-json", { "vocab.json": "{" })).rejects.toThrow(/vocab\.json: is not valid JSON/);
    await expect(open("list", { "vocab.json": "[]" })).rejects.toThrow(/must hold a JSON object/);
    await expect(open("bad-ids", { "vocab.json": '{"a":0,"b":0}' })).rejects.toThrow(/distinct integers from 0 to/);
    await expect(open("huge-id", { "vocab.json": '{"a":1000000000}' })).rejects.toThrow(
      /0 to \d+; got 1000000000 for "a"/,
    );
    await expect(open("huge-added", { "added_tokens.json": '{"<x>":1000000000}' })).rejects.toThrow(
      /0 to \d+; got 1000000000 for the added token "<x>"/,
    );
    await expect(open("longest", { "tokenizer_config.json": '{"model_max_length":999999999}' })).rejects.toThrow(
      /model_max_length must be an integer from 3 to \d+; got 999999999/,
    );
    await expect(open("bad-merge", { "merges.txt": "#version: 0.2\na b c\n" })).rejects.toThrow(/line 2 must be two/);
    await expect(open("lost-merge", { "merges.txt": "z q\n" })).rejects.toThrow(/vocab\.json lacks "zq"/);
    await expect(open("length", { "tokenizer_config.json": '{"model_max_length":2}' })).rejects.toThrow(FormatError);
    await expect(open("t5", { "tokenizer_config.json": '{"tokenizer_class":"T5Tokenizer"}' })).rejects.toThrow(
      ConfigError,
    );
    await expect(open("no-pad", { "special_tokens_map.json": '{"pad_token":"<pad>"}' })).rejects.toThrow(
      /pad_token "<pad>" is not in the vocabulary/,
    );
    await expect(open("left", { "tokenizer_config.json": '{"padding_side":"left"}' })).rejects.toThrow(
      /padding_side must be right; got "left"/,
    );
    await expect(open("moved", { "added_tokens.json": '{"<|endoftext|>":3}' })).rejects.toThrow(
      /"<\|endoftext\|>" has the id 3, the vocabulary 538/,
    );
    const fast = (model: object, rest: object = { added_tokens: [] }) => ({
      "tokenizer.json": JSON.stringify({
        model: { type: "BPE", vocab: { a: 0, b: 1 }, merges: [], ...model },
        ...rest,
      }),
    });
    await expect(open("no-suffix", fast({}))).rejects.toThrow(/end_of_word_suffix must be "<\/w>"/);
    await expect(open("no-added", fast({}, {}))).rejects.toThrow(/must describe a BPE model/);
    const suffix = { end_of_word_suffix: "</w>" };
    await expect(open("triple", fast({ ...suffix, merges: ["a b c"] }))).rejects.toThrow(/a merge must be two symbols/);
    await expect(open("lost", fast({ ...suffix, merges: [["a", "b"]] }))).rejects.toThrow(/tokenizer\.json lacks "ab"/);
    await expect(open("not-bpe", { "tokenizer.json": '{"model":{"type":"Unigram"}}' })).rejects.toThrow(FormatError);
  });
});

describe("writeClipTokenizer", () => {
  it("writes what it is given, readable again", async () => {
    const files = await readClipTokenizer(new FileStorage(path.join(root, "sd2")), "tokenizer");
    expect(files.vocab).toEqual(vocabulary.vocab);
    expect(files.merges).toEqual(vocabulary.merges);
    expect(files.config).toMatchObject({ tokenizer_class: "CLIPTokenizer", model_max_length: 16, pad_token: "!" });
    expect(await readFile(path.join(root, "sd2", "tokenizer", "merges.txt"), "utf8")).toMatch(/^#version: 0\.2\n/);
  });
});
