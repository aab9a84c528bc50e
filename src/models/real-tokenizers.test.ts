// Token ids with the vocabularies of published models (test/parity/make-real-tokenizer-golden.py), which are not kept here:
// FERA_TOKENIZERS names the folder tokenizer_configs of diffsynth 1.1.9.

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import "../storage/node.js";
import { FileStorage } from "../storage/file-storage.js";
import { CLIPTokenizer } from "./clip-tokenizer/clip-tokenizer.js";
import { readClipTokenizer } from "./clip-tokenizer/clip-tokenizer-folder.js";
import { T5Tokenizer } from "./t5-tokenizer/t5-tokenizer.js";
import { readT5Tokenizer } from "./t5-tokenizer/t5-tokenizer-folder.js";

const root = process.env.FERA_TOKENIZERS;
const golden = JSON.parse(await readFile("test/reference/real-tokenizers.json", "utf8"));
const clip = JSON.parse(await readFile("test/reference/clip-tokenizer/expected.json", "utf8"));
const prompts = [...clip.prompts, ...golden.more] as string[];
const LONG = 8192;

it("there are 500 prompts", () => expect(new Set(prompts).size).toBeGreaterThanOrEqual(495));

const title = root ? "the ids of 500 prompts" : "the ids of 500 prompts (skipped: FERA_TOKENIZERS names no folder)";
describe.skipIf(!root)(title, () => {
  const isT5 = (folder: string) => /flux\/tokenizer_2|tokenizer_3|cog/.test(folder);
  it.each(Object.keys(golden.digests))("%s", async (folder) => {
    const encode = await (isT5(folder) ? t5(folder) : clipOf(folder));
    const ids = prompts.map((prompt) => {
      const encoded = encode(prompt);
      return encoded.ids.slice(0, encoded.length);
    });
    expect(ids.filter((_, i) => i % 50 === 0)).toEqual(golden.samples[folder]);
    expect(createHash("sha256").update(JSON.stringify(ids)).digest("hex")).toBe(golden.digests[folder]);
  });

  it.each(["flux/tokenizer_2", "stable_diffusion_3/tokenizer_3"])("%s without tokenizer.json", async (folder) => {
    const storage = new FileStorage(`${root}/${folder}`);
    const withoutJson = Object.create(storage, {
      read: { value: async (name: string) => (name === "tokenizer.json" ? undefined : storage.read(name)) },
    }) as FileStorage;
    const files = await readT5Tokenizer(withoutJson, "");
    expect(files.source).toMatch(/spiece.model$/);
    const tokenizer = new T5Tokenizer(files);
    const ids = prompts.map((prompt) => {
      const encoded = tokenizer.encode(prompt, { maxLength: LONG });
      return encoded.ids.slice(0, encoded.length);
    });
    expect(createHash("sha256").update(JSON.stringify(ids)).digest("hex")).toBe(golden.digests[folder]);
  });

  async function t5(folder: string) {
    const tokenizer = await T5Tokenizer.fromPretrained(`${root}/${folder}`, { subfolder: "" });
    return (prompt: string) => tokenizer.encode(prompt, { maxLength: LONG });
  }

  async function clipOf(folder: string) {
    const files = await readClipTokenizer(new FileStorage(`${root}/${folder}`), "");
    const tokenizer = new CLIPTokenizer({ ...files, config: { ...files.config, model_max_length: LONG } });
    return (prompt: string) => tokenizer.encode(prompt);
  }
});
