// Text encoders and new tokens through the whole program: trained, resumed, drawn with and measured.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { readImage } from "../../src/images/image-file.js";
import { runFera, writeTinyImages } from "../support/fera-program.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

let dir: string;
const at = (...names: string[]) => join(dir, ...names);
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-cli-text-"));
  await writeTinyPipeline(at("model"));
  await writeTinyImages(at("images"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

it("trains text encoders and a token, says so, draws and measures with both, and refuses what contradicts itself", async () => {
  const model = ["--model", at("model"), "--threads", "1"];
  const data = ["--data", at("images"), "--caption-prefix", "<sks>"];
  const trained = await runFera(
    ...["train", ...model, ...data, "--output", at("run"), "--steps", "2", "--batch-size", "2"],
    ...["--adapter", "lora", "--train-text-encoder", "--text-encoder-lr", "1e-3", "--stop-text-encoder", "0.5"],
    ...["--train-tokens", "<sks>", "--initialize-tokens", "red", "--learning-rate", "0.1"],
  );
  expect(trained.stderr).toMatch(/no text states are kept: what makes them of captions is trained/);
  expect(trained.code).toBe(0);
  expect(trained.stdout).toMatch(/^text {6}.* parameters of text encoders$/m);
  expect(trained.stdout).toMatch(/^token {5}.*learned_embeds\.safetensors \(<sks>\)$/m);

  const embedding = ["--embedding", at("run", "learned_embeds.safetensors")];
  const adapter = ["--adapter", at("run", "adapter.safetensors")];
  const draw = async (name: string, ...options: string[]) => {
    const prompt = ["--prompt", "<sks> a red circle", "--seed", "1", "--steps", "2"];
    const { code, stderr } = await runFera("generate", ...model, ...prompt, "--output", at(name), ...options);
    expect(stderr).not.toMatch(/^fera: /m);
    expect(code).toBe(0);
    return Array.from((await readImage(at(name))).data);
  };
  const both = await draw("both.png", ...adapter, ...embedding);
  expect(await draw("again.png", ...adapter, ...embedding)).toEqual(both);
  expect(await draw("embedding.png", ...embedding)).not.toEqual(both);

  const measured = await runFera("evaluate", ...model, ...data, "--split", "all", ...adapter, ...embedding);
  expect(measured.stdout).toMatch(/adapted {3}\d/);
  const wrong = await runFera("train", ...model, ...data, "--output", at("wrong"), "--train-tokens", "<sks>");
  expect(wrong.code).toBe(2);
  expect(wrong.stderr).toMatch(/--train-tokens needs --initialize-tokens/);
});
