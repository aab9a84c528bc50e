// Token ids against transformers' (test/parity/make-qwen-tokenizer-golden.py).

import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import "../../storage/node.js";
import { FileStorage } from "../../storage/file-storage.js";
import { readClipTokenizer } from "../clip-tokenizer/clip-tokenizer-folder.js";
import { QwenTokenizer } from "./qwen-tokenizer.js";

const FOLDER = "test/reference/qwen-tokenizer";
const expected = JSON.parse(await readFile(`${FOLDER}/expected.json`, "utf8"));
const clip = JSON.parse(await readFile("test/reference/clip-tokenizer/expected.json", "utf8"));
const texts = [...clip.prompts, ...expected.more] as string[];

const files = await readClipTokenizer(new FileStorage(`${FOLDER}/files`), "");

describe.each(["files", "fast"])("the tokenizer folder %s", (name) => {
  it(`gives transformers' ids for all ${texts.length} prompts`, async () => {
    const tokenizer = await QwenTokenizer.fromPretrained(`${FOLDER}/${name}`, { subfolder: "" });
    const different = texts.flatMap((text, index) => {
      const { ids, length } = tokenizer.encode(text, { maxLength: 2000 });
      const [ours, theirs] = [ids.slice(0, length).join(" "), expected[name].ids[index].join(" ")];
      return ours === theirs ? [] : [{ text, ours, theirs }];
    });
    expect(different).toEqual([]);
    expect(tokenizer.vocabSize).toBe(expected[name].size);
  });

  it("makes a chat of a prompt, cuts and pads as transformers does", async () => {
    const tokenizer = await QwenTokenizer.fromPretrained(`${FOLDER}/${name}`, { subfolder: "" });
    const maxLength = expected.padded_length as number;
    const chats = texts.filter((_, i) => i % 40 === 0);
    for (const [i, prompt] of chats.entries()) {
      const { ids } = tokenizer.encodeChat(prompt, { thinking: false, maxLength });
      expect(ids).toEqual(expected[name].padded[i]);
    }
  });
});

it("a chat that may think ends where the answer begins", async () => {
  const tokenizer = await QwenTokenizer.fromPretrained(`${FOLDER}/files`, { subfolder: "" });
  const options = { maxLength: 100 };
  const chat = tokenizer.encodeChat("a cat", { ...options, thinking: true });
  expect(chat).toEqual(tokenizer.encode("<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n", options));
  expect(tokenizer.encode("a cat and a dog", { maxLength: 3 }).overflow).toMatch(/ ?dog$/);
  expect(tokenizer.decode(chat.ids)).toBe("user\na cat\nassistant\n");
});

describe("refuses", () => {
  const make = (config: object, more: object = {}) =>
    new QwenTokenizer({ ...files, ...more, config: { ...files.config, ...config } });
  it.each([
    [{ tokenizer_class: "LlamaTokenizer" }, /tokenizer_class must be Qwen2Tokenizer or Qwen2TokenizerFast/],
    [{ padding_side: "left" }, /padding_side must be right; got "left"/],
    [{ add_prefix_space: true }, /add_prefix_space must be false/],
    [{ pad_token: "<pad>" }, /the pad_token "<pad>" is not in the vocabulary/],
    [{ added_tokens_decoder: { 5: { content: "" } } }, /an added token must have content and an id/],
    [{ added_tokens_decoder: { 5: { content: "a" } } }, /the added token "a" has the id 5, the vocabulary \d+/],
  ])("%j", (config, message) => expect(() => make(config)).toThrow(message));

  it("chats of another template, or without the marks of turns", () => {
    const options = { thinking: true, maxLength: 9 };
    const other = make({}, { chatTemplate: "<|im_start|>system\nYou are Qwen" });
    expect(() => other.encodeChat("a", options)).toThrow(/its chat template is not that of Qwen3/);
    const bare = make({ added_tokens_decoder: { 9000: { content: "<|endoftext|>" } } });
    expect(() => bare.encodeChat("a", options)).toThrow(/has no <\|im_start\|>/);
  });
});
