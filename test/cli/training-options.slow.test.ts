// Every option of a training is declared once: flag, key of a file, run.json and the guard of a resumed run follow.

import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { kebabCase } from "../../src/cli/options.js";
import { readCheckpoint } from "../../src/training/checkpoint.js";
import {
  ADAPTER_OPTIONS,
  type AdapterOptionValues,
  toAdapterConfig,
} from "../../src/training/options/adapter-options.js";
import { type OptionSpec, type OptionSpecs, withDefaults } from "../../src/training/options/option.js";
import { TRAINING_OPTIONS } from "../../src/training/options/training-options.js";
import { runFera, writeTinyImages } from "../support/fera-program.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

const DECLARED: OptionSpecs = { ...ADAPTER_OPTIONS, ...TRAINING_OPTIONS };
const NAMES = Object.keys(DECLARED);
/** Where any value that the declaration allows would be too much work, or not fit the others. */
const CHOSEN: Record<string, unknown> = {
  steps: 2,
  batchSize: 2,
  router: "timestep",
  optimizer: "lion",
  schedule: "cosine-restarts",
  warmup: 1,
  topExperts: 1,
  decaySteps: 1,
  blockLr: ["attn1=0.5"],
  sigmaDivisor: 8,
  targetModules: ["to_q", "to_k", "conv1"],
  excludeModules: ["to_k"],
  rankPattern: ["attn1.to_q=3"],
  alphaPattern: ["conv1=3"],
  rank: 5,
  predictionType: "v_prediction",
  loss: "huber",
  trainTokens: "<sks>",
  initializeTokens: "red",
  tokenVectors: 2,
  tokensOnly: false,
  textEncoderTargets: ["q_proj", "out_proj"],
  textEncoderLr: 1e-3,
  stopTextEncoder: 1,
  adapterName: "own.safetensors",
  lossWeighting: "min-snr",
  timestepSampling: "logit-normal",
  maxTimestep: 900,
  // Crops at random places and captions that vary cannot be kept.
  cacheLatents: "none",
  cacheTextEncoderOutputs: "none",
  // run.json has it whole.
  cacheDir: join(tmpdir(), "fera-cli-options-cache"),
  // None of six images is held out.
  validationLossEvery: 0,
};
/** Of no use together with the others. */
const UNFIT = [
  ...["p2Gamma", "p2K", "modeScale", "dynamicTimestepShift", "vPredLikeLoss", "targetPattern", "excludePattern"],
  "power",
  // For images with masks.
  ...["unmaskedWeight", "normalizeMaskedLoss"],
];
const ADAPTERS = ["fera", "lora", "dora", "lokr", "loha", "t-lora"];

/** A value that the declaration allows, other than the given ones. */
function otherValue(spec: OptionSpec<unknown>, ...others: unknown[]): unknown {
  const words = (spec.schema as { options?: readonly unknown[] }).options ?? [];
  const candidates = [
    ...words,
    true,
    false,
    2,
    3,
    4,
    0.5,
    0.25,
    0.75,
    ["red"],
    ["to_k"],
    ["a=4"],
    "own.safetensors",
    "second",
    "64GB",
    "65GB",
  ];
  const isOther = (value: unknown) => others.every((other) => JSON.stringify(other) !== JSON.stringify(value));
  const found = candidates.find((value) => spec.schema.safeParse(value).success && isOther(value));
  if (found === undefined) throw new Error("no candidate is allowed");
  return found;
}

let dir: string;
const at = (...parts: string[]) => join(dir, ...parts);
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-cli-options-"));
  await writeTinyPipeline(at("model"));
  await writeTinyImages(at("images"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe("every option of a training", () => {
  it("is a flag, with help and default", async () => {
    const { stdout } = await runFera("train", "--help");
    for (const [name, { help, defaultValue }] of Object.entries(DECLARED)) {
      const line = stdout.split("\n").find((text) => text.includes(` --${kebabCase(name)} `));
      expect(line, name).toContain(help);
      if (defaultValue !== undefined && defaultValue !== false)
        expect(line, name).toContain(`(default: ${defaultValue})`);
    }
  });

  // Each kind of adapter refuses the options of the other.
  it.each(ADAPTERS)("of %s is a key of --config, kept in run.json, and guards --resume", async (adapter) => {
    const isOwn = (name: string, value: unknown): boolean => {
      try {
        toAdapterConfig({
          ...withDefaults(ADAPTER_OPTIONS, {}, "test"),
          adapter,
          [name]: value,
        } as AdapterOptionValues);
        return true;
      } catch {
        return false;
      }
    };
    const given: Record<string, unknown> = { adapter };
    for (const [name, spec] of Object.entries(DECLARED)) {
      const value = CHOSEN[name] ?? otherValue(spec, spec.defaultValue);
      if (UNFIT.includes(name)) continue;
      if (name !== "adapter" && (name in TRAINING_OPTIONS || isOwn(name, value))) given[name] = value;
    }
    if (adapter !== "fera") for (const name of ["sigmaRule", "sigmaDivisor", "routerLr"]) delete given[name];
    else given.sigmaRule = "latent";
    // Captions have the token that is trained.
    const sources = { model: at("model"), data: at("images"), captionPrefix: "<sks>" };
    await writeFile(at(`${adapter}.json`), JSON.stringify({ ...sources, ...given }));
    const output = ["--output", at(adapter), "--threads", "1"];
    const trained = await runFera("train", "--config", at(`${adapter}.json`), ...output);
    expect(trained.stderr).not.toMatch(/^fera: /m);
    expect(trained.code).toBe(0);
    const run = JSON.parse(readFileSync(at(adapter, "run.json"), "utf8"));
    expect(run).toMatchObject(given);
    for (const [name, spec] of Object.entries(DECLARED))
      if (spec.defaultValue !== undefined) expect(run).toHaveProperty(name);

    // All changed at once, as a file: each is refused by its flag, or accepted.
    const changed = Object.fromEntries(NAMES.map((name) => [name, otherValue(DECLARED[name]!, run[name])]));
    await writeFile(at("changed.json"), JSON.stringify(changed));
    const resumed = await runFera("train", "--config", at("changed.json"), "--resume", ...output);
    expect(resumed.code).toBe(2);
    const { fingerprint } = await readCheckpoint(at(adapter, "checkpoints/checkpoint-00000002.safetensors"));
    const config = (values: object) => JSON.stringify(toAdapterConfig(values as AdapterOptionValues));
    for (const [name, spec] of Object.entries(DECLARED)) {
      const refusal = `--${kebabCase(name)} was ${JSON.stringify(run[name]) ?? "not set"}; got ${JSON.stringify(changed[name])}`;
      if (spec.isKept(run)) expect(resumed.stderr, name).toContain(refusal);
      else expect(resumed.stderr, name).not.toContain(`--${kebabCase(name)} was`);
      // The library guards the same.
      if (name in TRAINING_OPTIONS) {
        expect(JSON.parse(fingerprint)[name], name).toEqual(spec.isKept(run) ? run[name] : undefined);
      } else if (name !== "adapter" && name in given) {
        const other = { ...run, [name]: name === "targetModules" ? ["to_v"] : changed[name] };
        expect(config(other), name).not.toBe(config(run));
      }
    }
    expect(fingerprint).toContain(config(run));
  });

  it("of another kind of adapter is refused by its flag, and a file that cannot hold the adapter", async () => {
    const run = (...flags: string[]) =>
      runFera("train", "--model", at("model"), "--data", at("images"), "--output", at("never"), ...flags);
    const fera = await run("--use-rslora");
    expect(fera.stderr).toContain('--use-rslora: the adapter "fera" has no such option');
    expect(fera.code).toBe(2);
    const lora = await run("--adapter", "lora", "--num-experts", "5");
    expect(lora.stderr).toContain('--num-experts: the adapter "lora" has no such option');
    expect(lora.code).toBe(2);
    const torch = await run("--router", "uniform", "--adapter-name", "own.pt");
    expect(torch.stderr).toMatch(/own\.pt: a \.pt file cannot say that the router is "uniform"/);
    expect(torch.code).toBe(2);
  });
});
