// Kinds of adapters, routers and optimizers through the whole program, and validation pictures: of what is saved, at the
// training's size.

import { readdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readSafetensors } from "../../src/storage/index.js";
import { runFera, writeTinyImages } from "../support/fera-program.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

let dir: string;
const at = (...parts: string[]) => join(dir, ...parts);
const train = (output: string, ...more: string[]) => [
  ...["train", "--model", at("model"), "--data", at("images"), "--output", at(output)],
  ...["--batch-size", "2", "--learning-rate", "1e-2", "--threads", "1", ...more],
];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-cli-kinds-"));
  await writeTinyPipeline(at("model"));
  await writeTinyImages(at("images"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

interface Pixels {
  data: Buffer;
  width: number;
  height: number;
}

async function pixels(file: string): Promise<Pixels> {
  const { data, info } = await sharp(file).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  return { data, width: info.width, height: info.height };
}

/** How often a picture, each pixel `scale` times as wide and high, lies in another. */
function occurrences(whole: Pixels, part: Pixels, scale: number): number {
  const isThere = (left: number, top: number): boolean => {
    for (let y = 0; y < part.height * scale; y++) {
      for (let x = 0; x < part.width * scale; x++) {
        const from = 3 * (Math.floor(y / scale) * part.width + Math.floor(x / scale));
        const to = 3 * ((top + y) * whole.width + left + x);
        for (let c = 0; c < 3; c++) if (part.data[from + c] !== whole.data[to + c]) return false;
      }
    }
    return true;
  };
  let count = 0;
  for (let top = 0; top <= whole.height - part.height * scale; top++) {
    for (let left = 0; left <= whole.width - part.width * scale; left++) if (isThere(left, top)) count++;
  }
  return count;
}

/** Draws a prompt with a run's adapter, or without one. */
async function draw(adapter: string | undefined, prompt: string, ...more: string[]): Promise<Pixels> {
  const file = at("drawn.png");
  const adapted = adapter === undefined ? [] : ["--adapter", adapter];
  const run = ["generate", "--model", at("model"), ...adapted, "--prompt", prompt, "--output", file, "--threads", "1"];
  expect((await runFera(...run, "--seed", "3", ...more)).code).toBe(0);
  return pixels(file);
}

describe("validation pictures", () => {
  it("are what generate draws with the saved average, at the training's size, at every quarter and at the end", async () => {
    const prompts = ["--validation-prompts", "a red circle", "--validation-prompts", "blue"];
    const { code } = await runFera(
      ...train("average", "--steps", "10", "--ema", "0.9", "--resolution", "64", "--seed", "3", ...prompts),
    );
    expect(code).toBe(0);
    const names = ["step-000003.png", "step-000006.png", "step-000009.png", "step-000010.png"];
    expect(readdirSync(at("average/validation")).filter((name) => name.startsWith("step-"))).toEqual(names);
    const [third, last] = await Promise.all(
      [names[0]!, names[3]!].map((name) => pixels(at("average/validation", name))),
    );
    const size = ["--width", "64", "--height", "64"];
    for (const prompt of ["a red circle", "blue"]) {
      const drawn = await draw(at("average/adapter.safetensors"), prompt, ...size);
      expect(occurrences(last!, drawn, 2)).toBe(1);
      expect(occurrences(third!, drawn, 2)).toBe(0);
    }
    // Above it, what the model draws without the adapter.
    expect(occurrences(last!, await draw(undefined, "blue", ...size), 2)).toBe(1);
  }, 300_000);
});

/** One of each family; FERA_FULL=1 tries all. */
const SHORTENED = ["rank-stabilized LoRA", "FeRA by Lion", "gates by timestep", "DoRA", "LoKr of all linear layers"];
const isTried = ([name]: [string, ...unknown[]]) => Boolean(process.env.FERA_FULL) || SHORTENED.includes(name);

describe("fera train, evaluate, generate and inspect", () => {
  const kinds: [string, string[], RegExp][] = [
    ["LoRA", ["--adapter", "lora", "--rank", "2"], /rank 2/],
    ["rank-stabilized LoRA", ["--adapter", "lora", "--use-rslora", "--alpha", "3"], /rank 4/],
    ["FeRA by Lion", ["--optimizer", "lion", "--learning-rate", "1e-3"], /3 experts/],
    [
      "gates that are the energies",
      ["--router", "gates-are-energies", "--bands", "complete", "--sigma-rule", "latent", "--sigma-divisor", "8"],
      /3 experts/,
    ],
    ["gates by timestep", ["--router", "timestep"], /3 experts/],
    ["uniform gates", ["--router", "uniform", "--num-experts", "2"], /2 experts/],
    ["experts with a shared A", ["--shared-down"], /3 experts/],
    ["DoRA", ["--adapter", "dora", "--rank", "2"], /DoRA/],
    ["LoKr of all linear layers", ["--adapter", "lokr", "--rank", "2", "--target-modules", "all-linear"], /LoKr/],
    ["LoHa", ["--adapter", "loha", "--rank", "2"], /LoHa/],
    ["T-LoRA", ["--adapter", "t-lora", "--rank", "2"], /T-LoRA/],
  ];
  it.each(kinds.filter(isTried))("take %s", async (name, flags, inspected) => {
    const output = name.replaceAll(" ", "-");
    const adapter = at(output, "adapter.safetensors");
    const validation = ["--validation-prompts", "red", "--seed", "3"];
    const trained = await runFera(...train(output, "--steps", "4", ...flags, ...validation));
    expect(trained.stderr).not.toMatch(/^fera: /m);
    expect(trained.code).toBe(0);
    // What begins at 0 has moved.
    const { tensors } = await readSafetensors(adapter);
    for (const [tensor, { data }] of tensors) expect(Array.from(data, Number).some(Boolean), tensor).toBe(true);

    const measure = [
      "evaluate",
      "--model",
      at("model"),
      "--adapter",
      adapter,
      "--data",
      at("images"),
      "--split",
      "all",
    ];
    const measured = await runFera(...measure, "--threads", "1");
    expect(measured.code).toBe(0);
    const [base, adapted] = [/base +([\d.]+)/, /adapted +([\d.]+)/].map((row) =>
      Number(measured.stdout.match(row)![1]),
    );
    expect(adapted).toBeLessThan(base!);

    const drawn = await draw(adapter, "red");
    const picture = await pixels(at(output, "validation/step-000004.png"));
    expect(occurrences(picture, drawn, 3)).toBe(1);
    expect(occurrences(picture, await draw(undefined, "red"), 3)).toBe(1);

    const { code, stdout } = await runFera("inspect", adapter);
    expect(stdout).toMatch(inspected);
    expect(code).toBe(0);
    const run = await runFera("inspect", at(output));
    expect(run.stdout).toContain("4 of 4 steps");
    const checkpoint = await runFera("inspect", at(output, "checkpoints/checkpoint-00000004.safetensors"));
    expect(checkpoint.stdout).toContain("after 4 steps");
    const optimizer = flags.includes("lion") ? "lion" : "adamw";
    expect(checkpoint.stdout).toMatch(new RegExp(`tensors of the optimizer's state\\n[^]*optimizer "${optimizer}"`));
  });
});
