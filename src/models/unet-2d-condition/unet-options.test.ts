// Every option of the Stable Diffusion families against diffusers (test/parity/make-unet-golden.py), and every other
// one refused.

import { afterAll, describe, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import { gradients } from "../../autodiff/index.js";
import { ConfigError, ShapeError } from "../../errors.js";
import * as ops from "../../graph/index.js";
import { Graph, type Value } from "../../graph/index.js";
import { type AdaptableLayer, type LayerAdapters, ModelWeights, Scope } from "../../nn/index.js";
import { compile } from "../../runtime/index.js";
import { readSafetensors } from "../../storage/index.js";
import "../../runtime/node.js";
import { Generator, randn } from "../../tensor/random.js";
import { type Tensor, tensor, zeros } from "../../tensor/tensor.js";
import {
  UNet2DConditionModel,
  type UNetInputs,
  unet,
  unetFeeds,
  unetInputs,
  unetShapeOf,
} from "./unet-2d-condition.js";
import { parseUNetConfig } from "./unet-config.js";

const OUTPUT_TOLERANCE = 2e-4;
const GRADIENT_TOLERANCE = 2e-3;

interface GoldenCase {
  seed: number;
  config: Record<string, unknown>;
  parameters: [string, number[]][];
  adapters: [string, number[]][];
  timesteps: number[];
  drawn: [string, number[]][];
  given: Record<string, number[] | number[][]>;
}

const { tensors: expected, metadata } = await readSafetensors("test/reference/unet-options/expected.safetensors");
const cases = JSON.parse(metadata.cases!) as Record<string, GoldenCase>;
const parity: [string, number, number][] = [];
// FERA_PARITY=1 prints the table of errors.
afterAll(() => {
  if (process.env.FERA_PARITY) console.table(parity.map(([name, output, gradient]) => ({ name, output, gradient })));
});

/** A case's weights, adapters and inputs, drawn as the script drew them. */
function draw({ seed, config, parameters, adapters, timesteps, drawn, given }: GoldenCase) {
  const generator = new Generator(seed);
  const weights = new Map(
    parameters.map(([name, shape]) => {
      const noise = randn(shape, { generator });
      return [name, { shape, tensor: tensor(noise.data.map(scaled(name, shape)), shape) }] as const;
    }),
  );
  const adapterWeights = new Map(
    adapters.map(([name, shape]) => {
      const noise = randn(shape, { generator });
      return [
        name,
        tensor(
          noise.data.map((value) => value * shape[1]! ** -0.5),
          shape,
        ),
      ] as const;
    }),
  );
  const inputs = new Map<string, Tensor<"float32">>(
    drawn.map(([name, shape]) => [name, randn(shape, { generator })] as const),
  );
  for (const [name, value] of Object.entries(given)) {
    const columns = Array.isArray(value[0]) ? [value[0].length] : [];
    inputs.set(name, tensor(value.flat(), [value.length, ...columns]));
  }
  const model = new UNet2DConditionModel(parseUNetConfig(config, "golden"), new ModelWeights(weights, "golden"));
  const textEmbeds = inputs.get("text_embeds");
  const unetTensors: UNetInputs = {
    latents: inputs.get("latents")!,
    timesteps: tensor(timesteps, undefined, "int64"),
    encoderHiddenStates: inputs.get("encoder_hidden_states")!,
    ...(textEmbeds && { addedConditions: { textEmbeds, timeIds: inputs.get("time_ids")! } }),
    ...(inputs.has("class_labels") && { classLabels: inputs.get("class_labels")! }),
    ...(inputs.has("timestep_cond") && { timestepCond: inputs.get("timestep_cond")! }),
  };
  return { model, adapterWeights, inputs: unetTensors, target: inputs.get("target")! };
}

function scaled(name: string, shape: number[]): (noise: number) => number {
  if (name.includes("norm") && name.endsWith("weight")) return (noise) => 1 + 0.2 * noise;
  if (shape.length === 1) return (noise) => 0.1 * noise;
  const fanIn = shape.slice(1).reduce((size, dimension) => size * dimension, 1);
  return (noise) => noise * fanIn ** -0.5;
}

/** Adds up(down(x)) to the layers that have both as graph inputs. */
class PlainAdapters implements LayerAdapters {
  constructor(private readonly values: ReadonlyMap<string, Value>) {}
  apply({ path }: AdaptableLayer, x: Value, y: Value): Value {
    const down = this.values.get(`${path}.down`);
    const up = this.values.get(`${path}.up`);
    return down && up ? ops.add(y, ops.linear(ops.linear(x, down), up)) : y;
  }
}

describe("agrees with diffusers in output and gradients", () => {
  for (const [name, golden] of Object.entries(cases)) {
    it(name, async () => {
      const { model, adapterWeights, inputs, target } = draw(golden);
      expect(
        [...UNet2DConditionModel.fromConfig(golden.config, new Generator(0)).weights.weights.keys()].sort(),
      ).toEqual(golden.parameters.map(([path]) => path).sort());
      const graph = new Graph();
      const values = unetInputs(graph, model.config, unetShapeOf(inputs, model.config));
      const adapters = new Map(
        [...adapterWeights].map(([path, { shape }]) => [path, graph.input(path, "float32", shape)]),
      );
      const output = unet(new Scope(graph, model.weights, new PlainAdapters(adapters)), values, model.config);
      const difference = ops.sub(output, graph.input("target", "float32", target.shape));
      const wanted = [values.latents, values.encoderHiddenStates, ...adapters.values()];
      const found = gradients(ops.reduceMean(ops.mul(difference, difference)), wanted);
      graph.output("output", output);
      for (const [i, gradient] of found.entries()) graph.output(`${i}`, gradient);
      const compiled = await compile(graph);
      const result = await compiled.run({ ...unetFeeds(inputs), ...Object.fromEntries(adapterWeights), target });
      await compiled.release();

      const error = (key: string, values: ArrayLike<number>) =>
        relativeError(values, expected.get(`${name}.${key}`)!.data as Float32Array);
      const outputError = error("output", result.output!.data as Float32Array);
      const joined = wanted.slice(2).flatMap((_, i) => [...(result[`${i + 2}`]!.data as Float32Array)]);
      const gradientErrors = {
        latents: error("grad.latents", result["0"]!.data as Float32Array),
        text: error("grad.encoder_hidden_states", result["1"]!.data as Float32Array),
        adapters: error("grad.adapters", joined),
        worstAdapter: Math.max(...eachAdapter(name, golden, joined)),
      };
      parity.push([name, outputError, Math.max(...Object.values(gradientErrors))]);
      expect(outputError).toBeLessThan(OUTPUT_TOLERANCE);
      for (const [of, gradientError] of Object.entries(gradientErrors))
        expect(gradientError, of).toBeLessThan(GRADIENT_TOLERANCE);
    });
  }

  /** The error of every adapter's gradient by itself. */
  function eachAdapter(name: string, { adapters }: GoldenCase, joined: number[]): number[] {
    const reference = expected.get(`${name}.grad.adapters`)!.data as Float32Array;
    let at = 0;
    return adapters.map(([, [rows, columns]]) => {
      const from = at;
      at += rows! * columns!;
      return relativeError(joined.slice(from, at), reference.slice(from, at));
    });
  }
});

describe("refuses by name and value", () => {
  const config = cases.sd1!.config;
  const refused: [string, unknown][] = [
    ["center_input_sample", true],
    ["down_block_types", ["SimpleCrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"]],
    ["mid_block_type", "UNetMidBlock2DSimpleCrossAttn"],
    ["up_block_types", ["ResnetUpsampleBlock2D", "UpBlock2D", "UpBlock2D"]],
    ["downsample_padding", 0],
    ["mid_block_scale_factor", 1.5],
    ["dropout", 0.1],
    ["act_fn", "gelu"],
    ["norm_num_groups", null],
    ["cross_attention_dim", [12, 12, 12]],
    ["encoder_hid_dim", 32],
    ["encoder_hid_dim_type", "text_proj"],
    ["num_attention_heads", 4],
    ["dual_cross_attention", true],
    ["class_embed_type", "text"],
    ["addition_embed_type", "text_image"],
    ["resnet_time_scale_shift", "ada_group"],
    ["resnet_skip_time_act", true],
    ["resnet_out_scale_factor", 2],
    ["time_embedding_type", "fourier"],
    ["time_embedding_act_fn", "silu"],
    ["timestep_post_act", "gelu"],
    ["conv_in_kernel", 1],
    ["conv_out_kernel", 5],
    ["attention_type", "gated"],
    ["class_embeddings_concat", true],
    ["mid_block_only_cross_attention", true],
    ["cross_attention_norm", "group_norm"],
  ];
  for (const [option, value] of refused) {
    it(`${option} = ${JSON.stringify(value)}`, () => {
      const parse = () => parseUNetConfig({ ...config, [option]: value }, "unet/config.json");
      const came = JSON.stringify(Array.isArray(value) && option.endsWith("types") ? value[0] : value);
      expect(parse).toThrow(ConfigError);
      expect(parse).toThrow(option);
      expect(parse).toThrow(came);
    });
  }

  it("options that lack what they need", () => {
    const parse = (change: object) => () => parseUNetConfig({ ...config, ...change }, "unet/config.json");
    expect(parse({ class_embed_type: "projection" })).toThrow(
      /"projection" needs projection_class_embeddings_input_dim/,
    );
    expect(parse({ addition_embed_type: "text_time" })).toThrow(/"text_time" needs addition_time_embed_dim/);
    expect(parse({ addition_embed_type: "text", addition_embed_type_num_heads: 5 })).toThrow(
      /addition_embed_type_num_heads=5 must divide cross_attention_dim; got/,
    );
    expect(parse({ only_cross_attention: [true] })).toThrow(/only_cross_attention must have 3 entries; got 1/);
    expect(parse({ attention_head_dim: [1, 2] })).toThrow(/attention_head_dim must have 3 entries; got 2/);
    expect(parse({ transformer_layers_per_block: [[1], 1, 1] })).toThrow(/needs reverse_transformer_layers_per_block/);
    const reverse_transformer_layers_per_block = [1, [1, 1, 1], 1];
    expect(parse({ reverse_transformer_layers_per_block })).toThrow(/must have 2 entries.* got 3/);
  });
});

describe("inputs", () => {
  const predict = (name: string, change: Partial<UNetInputs>) => {
    const { model, inputs } = draw(cases[name]!);
    return expect(model.predict({ ...inputs, ...change })).rejects;
  };

  it("that a checkpoint with classes or guidance needs, and others do not take", async () => {
    await predict("upscaler", { classLabels: undefined }).toThrow(/needs classLabels \(num_class_embeds is 20\)/);
    await predict("class-identity", { classLabels: undefined }).toThrow(/class_embed_type is identity/);
    await predict("guidance-embedding", { timestepCond: undefined }).toThrow(/needs timestepCond/);
    await predict("sd1", { classLabels: zeros([3]) }).toThrow(/takes no classLabels/);
    await predict("sd1", { timestepCond: zeros([3, 6]) }).toThrow(/takes no timestepCond/);
  });

  it("of the wrong shape or range are refused", async () => {
    await predict("upscaler", { classLabels: tensor([0, 20, 1]) }).toThrow(/0 … 19 \(num_class_embeds\); got 20/);
    await predict("upscaler", { classLabels: tensor([0, 1]) }).toThrow(ShapeError);
    await predict("class-projection", { classLabels: zeros([2, 9]) }).toThrow(
      /\[2, 10\] \(projection_class_embeddings_input_dim\); got \[2,9\]/,
    );
    await predict("guidance-embedding", { timestepCond: zeros([2, 5]) }).toThrow(/\[2, 6\] \(time_cond_proj_dim\)/);
    const addedConditions = { textEmbeds: zeros([2, 6]), timeIds: zeros([2, 5]) };
    await predict("sdxl", { addedConditions }).toThrow(/textEmbeds must be \[2, 10\] \(5 timeIds leave that\)/);
  });

  it("take classes as integers", async () => {
    const { model, inputs } = draw(cases.upscaler!);
    const [a, b] = [inputs.classLabels!, tensor([0, 19, 7], undefined, "int64")];
    const [first, second] = [await model.predict(inputs), await model.predict({ ...inputs, classLabels: b })];
    expect(second).toEqual(first);
    expect(a.dtype).toBe("float32");
    await model.release();
  });
});

it("leaves five timeIds to a configuration like the refiner's", () => {
  const shape = { batchSize: 1, latentHeight: 8, latentWidth: 8, tokens: 1 };
  const columns = (name: string) =>
    unetInputs(new Graph(), parseUNetConfig(cases[name]!.config, name), shape).timeIds!.shape[1];
  expect(columns("sdxl-refiner")).toBe(5);
  expect(columns("sdxl")).toBe(6);
});
