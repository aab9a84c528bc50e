import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../test/support/relative-error.js";
import "../index.js";
import { readSafetensors, writeSafetensors, writeTorch } from "../storage/index.js";
import { encodeSafetensors } from "../storage/safetensors.js";
import { Generator, randn } from "../tensor/random.js";
import { tensor } from "../tensor/tensor.js";
import { StableDiffusionPipeline, StableDiffusionXLPipeline } from "./index.js";
import { readTokenEmbedding, writeTokenEmbedding } from "./token-embedding.js";

let dir: string;
let sd: StableDiffusionPipeline;
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "fera-tokens-"));
  sd = await StableDiffusionPipeline.fromPretrained("test/reference/pipeline-tiny");
});
afterAll(async () => {
  rmSync(dir, { recursive: true, force: true });
  await sd.release();
});

const drawn = (shape: number[], seed: number) => randn(shape, { generator: new Generator(seed) });
const VOCABULARY = 532;

describe("a learned token", () => {
  it("is found wherever a prompt has it, with all of its vectors, which stand in the places of its ids", async () => {
    const vectors = drawn([2, 24], 1);
    const words = (text: string) => sd.tokenizer.encode(text).ids.slice(1, sd.tokenizer.encode(text).length - 1);
    const [a, b] = [words("a red"), words("circle")];
    await sd.loadTextualInversion({ token: "<sks>", vectors: [vectors] });
    expect(words("a red <sks> circle")).toEqual([...a, VOCABULARY, VOCABULARY + 1, ...b]);
    expect(words("a red<sks>circle")).toEqual([...a, VOCABULARY, VOCABULARY + 1, ...b]);
    expect(words("<SKS>")).not.toContain(VOCABULARY);
    expect(sd.tokenizer.encode(Array(9).fill("<sks>").join(" ")).overflow).toBe("<sks> <sks>");

    // A vector that is the table's own row gives what the word itself gives.
    const [circle] = b;
    await sd.unloadTextualInversion("<sks>");
    const plain = await sd.encodePrompt(["a red circle"]);
    await sd.loadTextualInversion({ token: "<round>", vectors: [await sd.textEncoder.tokenVectors(b)] });
    const same = await sd.encodePrompt(["a red <round>"]);
    expect(circle).toBeDefined();
    expect(relativeError(same.data, plain.data)).toBeLessThan(1e-6);
    // A second one has ids behind it, and keeps its vectors when the first goes.
    await sd.loadTextualInversion({ token: "<sks>", vectors: [vectors] });
    const both = await sd.encodePrompt(["a <sks>"]);
    await sd.unloadTextualInversion("<round>");
    expect(relativeError((await sd.encodePrompt(["a <sks>"])).data, both.data)).toBeLessThan(1e-6);
    expect(sd.addedTokens).toEqual(["<sks>"]);
    await sd.unloadTextualInversion("<sks>");
    expect((await sd.encodePrompt(["a red circle"])).data).toEqual(plain.data);
  });

  it("is refused where it is known, no token, or for another model; nothing is changed then", async () => {
    const vectors = [drawn([1, 24], 2)];
    await expect(sd.loadTextualInversion({ token: "a", vectors })).rejects.toThrow(
      /a token of this vocabulary already/,
    );
    await expect(sd.loadTextualInversion({ token: "two words", vectors })).rejects.toThrow(/without white space/);
    await expect(sd.loadTextualInversion({ token: "<x>", vectors: [drawn([1, 16], 2)] })).rejects.toThrow(
      /must have vectors of 24 features.*got 16/,
    );
    await expect(sd.unloadTextualInversion("<x>")).rejects.toThrow(/there is no token "<x>"; loaded are none/);
    expect(sd.addedTokens).toEqual([]);
    expect(sd.textEncoder.addedVectors).toBeUndefined();
  });
});

describe("files of learned tokens", () => {
  it("of diffusers, A1111 and SDXL are read, and written as diffusers reads them", async () => {
    const vectors = drawn([2, 24], 3);
    const own = join(dir, "learned_embeds.safetensors");
    await writeTokenEmbedding(own, { token: "<sks>", vectors: [vectors] });
    expect((await readSafetensors(own)).tensors.get("<sks>")!.shape).toEqual([2, 24]);
    expect(await readTokenEmbedding(own)).toEqual({ token: "<sks>", vectors: [vectors] });

    const single = join(dir, "learned_embeds.bin.pt");
    await writeTorch(single, { "<one>": tensor(vectors.data.slice(0, 24), [24]) });
    expect((await readTokenEmbedding(single)).vectors[0]!.shape).toEqual([1, 24]);

    const automatic = join(dir, "my-cat.safetensors");
    await writeSafetensors(automatic, { emb_params: vectors });
    expect(await sd.loadTextualInversion(automatic)).toBe("my-cat");
    expect(await sd.loadTextualInversion(automatic, { token: "<other>" })).toBe("<other>");
    for (const token of sd.addedTokens) await sd.unloadTextualInversion(token);

    const xl = await StableDiffusionXLPipeline.fromPretrained("test/reference/pipeline-tiny-xl");
    const both = [drawn([2, 16], 4), drawn([2, 24], 5)];
    const ofXl = join(dir, "xl.safetensors");
    await writeTokenEmbedding(ofXl, { token: "<sks>", vectors: both });
    expect([...(await readSafetensors(ofXl)).tensors.keys()].sort()).toEqual(["clip_g", "clip_l"]);
    const plain = await xl.encodePrompt(["a red circle"]);
    expect(await xl.loadTextualInversion(ofXl)).toBe("<sks>");
    const told = await xl.encodePrompt(["a red <sks>"]);
    expect(relativeError(told.textEmbeds.data, plain.textEmbeds.data)).toBeGreaterThan(1e-3);
    await xl.release();
  });

  it("are refused where they are none", async () => {
    const two = encodeSafetensors({ a: drawn([1, 24], 1), b: drawn([1, 24], 1) });
    await expect(readTokenEmbedding(two)).rejects.toThrow(/must hold one tensor .*it holds "a", "b"/);
    const many = encodeSafetensors({ a: drawn([76, 2], 1) });
    await expect(readTokenEmbedding(many)).rejects.toThrow(/"a" must have 75 vectors at most; got 76/);
    const odd = encodeSafetensors({ clip_l: drawn([1, 2], 1), clip_g: drawn([2, 2], 1) });
    await expect(readTokenEmbedding(odd)).rejects.toThrow(/as many vectors as each other/);
    const bytes = encodeSafetensors({ emb_params: drawn([1, 24], 1) });
    await expect(sd.loadTextualInversion(bytes)).rejects.toThrow(/give \{ token \}/);
  });
});
