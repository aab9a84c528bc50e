// The tests that every family of transformers has: agreement with diffusers, PEFT and FeRA in output, gradients and training.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AdapterModel, FeRAConfig, FeRAModel, LoRAConfig } from "../../src/adapters/index.js";
import { gradients } from "../../src/autodiff/index.js";
import { ConfigError } from "../../src/errors.js";
import * as ops from "../../src/graph/index.js";
import { Graph, type Value } from "../../src/graph/index.js";
import type { AdaptableLayer, LayerAdapters, Weight } from "../../src/nn/index.js";
import { compile } from "../../src/runtime/index.js";
import "../../src/runtime/node.js";
import { writeSafetensors } from "../../src/storage/index.js";
import { Generator } from "../../src/tensor/random.js";
import { type Tensor, zeros } from "../../src/tensor/tensor.js";
import { AdamW } from "../../src/training/index.js";
import { relativeError } from "./relative-error.js";
import { type DrawnCase, drawnBy, type TransformerClass, transformerGolden } from "./transformer-golden.js";

const OUTPUT_TOLERANCE = 2e-4;
const GRADIENT_TOLERANCE = 2e-3;
const TRAINED_TOLERANCE = 2e-3;
const LOSS_TOLERANCE = 1e-4;

const snakeCase = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** Adds up(down(x)) to the layers that have both as graph inputs. */
class PlainAdapters implements LayerAdapters {
  readonly seen = new Set<string>();
  constructor(private readonly values: ReadonlyMap<string, Value>) {}
  apply({ path }: AdaptableLayer, x: Value, y: Value): Value {
    const [down, up] = ["down", "up"].map((side) => this.values.get(`${path}.${side}`));
    if (!down || !up) return y;
    this.seen.add(path);
    return ops.add(y, ops.linear(ops.linear(x, down), up));
  }
}

interface TransformerChecks {
  /** All cases of the file: one that has lost some would let a test pass. */
  names: readonly string[];
  /** Weights of checkpoints that are no parameters. */
  extraWeights?: readonly string[];
  /** Options and values that a configuration may not have, and what is said of them. */
  refused: readonly (readonly [option: string, value: unknown, reason: RegExp])[];
}

type HeldWeight = Extract<Weight, { tensor: unknown }>;

/**
 * Registers them.
 *
 * @param family - Names the file of golden values.
 */
export async function checkTransformer(
  family: string,
  of: TransformerClass,
  { names, extraWeights = [], refused }: TransformerChecks,
): Promise<void> {
  const golden = await transformerGolden(family, of);
  const parity: [string, number, number][] = [];
  // FERA_PARITY=1 prints the table of errors.
  afterAll(() => {
    if (process.env.FERA_PARITY) console.table(parity.map(([name, output, gradient]) => ({ name, output, gradient })));
  });

  describe("agrees with diffusers in output and gradients", () => {
    it("in all cases", () => expect(Object.keys(golden.cases)).toEqual(names));
    for (const name of names) {
      it(name, async () => {
        const drawn = golden.draw(name);
        expect([...drawn.model.weights.weights.keys()].sort()).toEqual(
          [...drawn.parameterNames, ...extraWeights].sort(),
        );
        const { output, byName } = await outputAndGradients(drawn);
        const error = (key: string, values: ArrayLike<number>) =>
          relativeError(values, golden.expected(`${name}.${key}`));
        const outputError = error("output", output);
        const adapters = [...drawn.adapters.keys()].flatMap((path) => [...byName.get(path)!]);
        const errors = new Map([["adapters", error("grad.adapters", adapters)]]);
        for (const key of Object.keys(drawn.inputs)) {
          if (key === "timesteps" || key === "guidance") continue;
          errors.set(key, error(`grad.${snakeCase(key)}`, byName.get(key)!));
        }
        parity.push([name, outputError, Math.max(...errors.values())]);
        expect(outputError).toBeLessThan(OUTPUT_TOLERANCE);
        for (const [key, value] of errors) expect(value, key).toBeLessThan(GRADIENT_TOLERANCE);
      });
    }
  });

  describe("loads from a folder", () => {
    let folder: string;
    const drawn = golden.draw(names[0]!);
    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), "fera-transformer-"));
      const config = { _class_name: drawn.model.className, _diffusers_version: "0.42.1", ...drawn.config };
      writeFileSync(join(folder, "config.json"), JSON.stringify(config));
      const weights = [...drawn.model.weights.weights].map(
        ([name, weight]) => [name, (weight as HeldWeight).tensor] as const,
      );
      await writeSafetensors(join(folder, "diffusion_pytorch_model.safetensors"), new Map(weights));
    });
    afterAll(() => rmSync(folder, { recursive: true }));

    it("with diffusers' configuration and names, in float32 and in half precision", async () => {
      const wanted = await drawn.model.predict(drawn.inputs);
      for (const [dtype, limit] of [
        ["float32", 1e-6],
        ["float16", 1e-2],
      ] as const) {
        const loaded = await of.fromPretrained(folder, { dtype });
        const { data } = await loaded.predict(drawn.inputs);
        expect(relativeError(data, wanted.data), dtype).toBeLessThan(limit);
        await loaded.dispose();
      }
    });
  });

  describe("refuses by name", () => {
    it("options that it does not know", () => {
      const config = { ...golden.cases[names[0]!]!.config, brand_new_option: 3 };
      expect(() => of.fromConfig(config, new Generator(0))).toThrow(/unsupported option brand_new_option=3/);
    });

    for (const [option, value, reason] of refused) {
      it(`${option} = ${JSON.stringify(value)}`, () => {
        const make = () => of.fromConfig({ ...golden.cases[names[0]!]!.config, [option]: value }, new Generator(0));
        expect(make).toThrow(ConfigError);
        expect(make).toThrow(reason);
        expect(make).toThrow(option);
      });
    }

    it("inputs that do not fit", async () => {
      const { model, inputs } = golden.draw(names[0]!);
      const [batch, channels, height, width] = inputs.latents.shape as [number, number, number, number];
      const refusal = (change: object) => expect(model.predict({ ...inputs, ...change })).rejects;
      await refusal({ latents: zeros([batch, channels + 1, height, width]) }).toThrow(`[B, ${channels}, H, W]; got`);
      await refusal({ latents: zeros([batch, channels, height + 1, width]) }).toThrow(/multiples of 2 .* got/);
      await refusal({ encoderHiddenStates: zeros([batch, 3, 1]) }).toThrow(
        /encoderHiddenStates must be \[\d+, T, \d+\]/,
      );
      await refusal({ encoderHiddenStates: undefined }).toThrow(/needs encoderHiddenStates \(/);
      await refusal({ classLabels: zeros([batch]) }).toThrow(/takes no classLabels/);
      if (batch > 2) await refusal({ timesteps: zeros([2]) }).toThrow(/timesteps must be/);
    });
  });

  describe("trains as PEFT and FeRA do", () => {
    it("LoRA: output, gradients, losses over eight steps of AdamW, and what is trained", async () => {
      const { config, targets, layers } = golden.training.lora;
      const { seed } = golden.cases[golden.training.case]!;
      const drawn = golden.draw(golden.training.case);
      const generator = new Generator(seed + 100);
      const options = { rank: config.r as number, alpha: config.lora_alpha as number, targetModules: targets };
      const model = new AdapterModel(drawn.model, new LoRAConfig(options));
      expect(model.layers.map(({ path }) => path).sort()).toEqual([...layers].sort());
      const shapes = new Map([...model.stateDict()].map(([key, { shape }]) => [key, shape]));
      const names = layers.flatMap((path) => [`${path}.lora_A.weight`, `${path}.lora_B.weight`]);
      const state = names.map((key): [string, Tensor<"float32">] => {
        const shape = shapes.get(key)!;
        return [key, drawnBy(generator, shape, key.includes("lora_A") ? shape[1]! ** -0.5 : 0.3)];
      });
      model.loadStateDict(new Map(state));
      await checkTraining("lora", model, drawn, names);
    });

    it("FeRA: output, gates, gradients, losses over eight steps of AdamW, and what is trained", async () => {
      const { config, targets, names } = golden.training.fera;
      const { seed } = golden.cases[golden.training.case]!;
      const drawn = golden.draw(golden.training.case);
      const generator = new Generator(seed + 200);
      const model = new FeRAModel(drawn.model, new FeRAConfig({ ...config, targetModules: targets }));
      const state = names.map(([key, shape]): [string, Tensor<"float32">] => {
        const factor = key.startsWith("router") ? 0.5 : key.includes("lora_down") ? shape[1]! ** -0.5 : 0.3;
        return [key, drawnBy(generator, shape, factor)];
      });
      model.loadStateDict(new Map(state));
      const { weights } = await model.route(drawn.inputs.latents);
      expect(relativeError(weights.data, golden.expected("fera.gates"))).toBeLessThan(OUTPUT_TOLERANCE);
      await checkTraining(
        "fera",
        model,
        drawn,
        names.map(([key]) => key),
      );
    });
  });

  async function checkTraining(
    kind: "lora" | "fera",
    model: AdapterModel,
    drawn: DrawnCase,
    names: readonly string[],
  ): Promise<void> {
    const { lr, betas, eps, weight_decay: weightDecay } = golden.training.optimizer;
    const { inputs, target } = drawn;
    const expected = (key: string) => golden.expected(`${kind}.${key}`);
    const compare = (found: ReadonlyMap<string, Tensor>, key: string, limit: number) => {
      expect([...found.keys()].sort()).toEqual([...names].sort());
      const values = names.flatMap((name) => [...(found.get(name)!.data as Float32Array)]);
      expect(relativeError(values, expected(key)), key).toBeLessThan(limit);
    };
    const output = async (key: string, limit: number) =>
      expect(relativeError((await model.predict(inputs)).data, expected(key)), key).toBeLessThan(limit);
    await output("output", OUTPUT_TOLERANCE);
    const [batchSize, , latentHeight, latentWidth] = inputs.latents.shape as [number, number, number, number];
    const shape = { batchSize, latentHeight, latentWidth, tokens: inputs.encoderHiddenStates!.shape[1]! };
    const step = await model.compileTrainStep({ ...shape, optimizer: new AdamW({ lr, betas, eps, weightDecay }) });
    const batch = { ...inputs, target };
    const { gradients } = await step.gradients(batch);
    compare(gradients, "grad", GRADIENT_TOLERANCE);
    const recomputing = await model.compileTrainStep({ ...shape, gradientCheckpointing: true });
    expect((await recomputing.gradients(batch)).gradients, "recomputed").toEqual(gradients);
    await recomputing.release();
    for (const at of expected("losses").keys()) {
      const found = (await step.run(batch)) as unknown as Record<string, number>;
      const close = (term: string, wanted: number) =>
        expect(Math.abs(found[term]! / wanted - 1), `${term} ${at}`).toBeLessThan(LOSS_TOLERANCE);
      close("loss", expected("losses")[at]!);
      if (kind === "lora") continue;
      close("mse", expected("mse")[at]!);
      // Terms are given weighted.
      close("fecl", (golden.training.fera.config.feclWeight as number) * expected("fecl")[at]!);
    }
    compare(model.stateDict(), "trained", TRAINED_TOLERANCE);
    await output("trained_output", TRAINED_TOLERANCE);
    await step.release();
    await model.release();
  }
}

/** The prediction with plain adapters, and the gradients of its mean squared error by name. */
async function outputAndGradients({ model, adapters, inputs, target }: DrawnCase) {
  const graph = new Graph();
  const values = model.declareInputs(graph, model.shapeOf(inputs));
  const added = new Map([...adapters].map(([path, { shape }]) => [path, graph.input(path, "float32", shape)]));
  const plain = new PlainAdapters(added);
  const output = model.build(model.frozenScope(graph, plain), values);
  expect(plain.seen.size).toBe(adapters.size / 2);
  const difference = ops.sub(output, graph.input("target", "float32", target.shape));
  const { timesteps: _, guidance: _guidance, ...differentiated } = values;
  const wanted = [...Object.entries(differentiated), ...added];
  const found = gradients(
    ops.reduceMean(ops.mul(difference, difference)),
    wanted.map(([, value]) => value),
  );
  graph.output("output", output);
  for (const [i, gradient] of found.entries()) graph.output(`${i}`, gradient);
  const compiled = await compile(graph);
  const result = await compiled.run({ ...model.feedsOf(inputs), ...Object.fromEntries(adapters), target });
  await compiled.release();
  const data = (key: string) => result[key]!.data as Float32Array;
  return { output: data("output"), byName: new Map(wanted.map(([key], i) => [key, data(`${i}`)])) };
}
