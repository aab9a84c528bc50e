import { mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { operatorsOf } from "../../../test/support/onnx-nodes.js";
import { relativeError } from "../../../test/support/relative-error.js";
import { gradients } from "../../autodiff/index.js";
import * as ops from "../../graph/index.js";
import { Graph, type Value } from "../../graph/index.js";
import { fewBitWeights, shapeMetadata } from "../../models/few-bits.js";
import { int8, toInt8 } from "../../models/int8-weights.js";
import { compile } from "../../runtime/index.js";
import "../../runtime/node.js";
import { ownInt8Range } from "../../storage/int8-range.js";
import { safetensorsHead } from "../../storage/safetensors.js";
import { openSafetensors } from "../../storage/tensor-file.js";
import { Generator, randint, randn } from "../../tensor/random.js";
import { sizeOf, type Tensor, tensor } from "../../tensor/tensor.js";
import { lower } from "../lower.js";
import "../../storage/node.js";

/** Float32 sums in another order. */
const ROUNDING = 1e-6;

let folder: string;

beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), "fera-int8-")));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** Integers from −100 to 155, both of them among these: quantized to 8 bits, they stay what they are. */
function exactValues(shape: readonly number[], seed: number): Tensor<"float32"> {
  const drawn = randint(-100, 156, shape, { generator: new Generator(seed) });
  const data = Float32Array.from(drawn.data as ArrayLike<number | bigint>, Number);
  data[0] = -100;
  data[1] = 155;
  return tensor(data, shape);
}

/** The weight that a matrix of integers stands for, `[out, in, …]`. */
function weightOf(values: Float32Array, shape: readonly number[], blocks: number, side: "forward" | "gradient") {
  const [out, channels] = shape as [number, number];
  const taps = values.length / out / channels;
  const { forward, scale, gradient, gradientScale } = toInt8(values, shape, blocks, ownInt8Range());
  const data = values.map((_, i) => {
    const [o, c, tap] = [Math.floor(i / taps / channels), Math.floor(i / taps) % channels, i % taps];
    if (side === "gradient") return gradientScale[c]! * gradient[((taps - 1 - tap) * out + o) * channels + c]!;
    const blockOut = out / blocks;
    const block = Math.floor(o / blockOut);
    return scale[o]! * forward[(block * taps * channels + tap * channels + c) * blockOut + (o % blockOut)]!;
  });
  return tensor(data, shape);
}

/** Writes a weight as integers; it in a graph, and what its forward and its gradient's matrix stand for as constants. */
async function int8Weight(graph: Graph, name: string, shape: readonly number[]) {
  const { data } = randn(shape, { generator: new Generator(shape.length + shape[0]!) });
  const path = join(folder, `${name}.safetensors`);
  const kind = int8(ownInt8Range());
  const head = safetensorsHead(kind.tensors(name, shape), shapeMetadata([[name, shape]]));
  await writeFile(path, Buffer.concat([head, ...kind.bytes(name, data, shape)]));
  const { entries, metadata } = await openSafetensors(path);
  const [, readShape, range] = [...fewBitWeights(kind, { path, entries, metadata })][0]!;
  expect(readShape).toEqual(shape);
  const blocks = name.includes("ff.net.0.proj") ? 2 : name.includes("to_qkv_mlp_proj") ? 9 : 1;
  return {
    inFile: graph.file(name, "float32", shape, range),
    forward: graph.constant(weightOf(data, shape, blocks, "forward")),
    gradient: graph.constant(weightOf(data, shape, blocks, "gradient")),
    data,
  };
}

interface Case {
  name: string;
  weight: readonly number[];
  input: readonly number[];
  apply: (x: Value, weight: Value, bias: Value) => Value;
}

const pointwise = (x: Value, weight: Value) => {
  const [out, channels] = weight.shape as [number, number];
  return ops.matMul(
    ops.reshape(weight, [out, channels]),
    ops.reshape(x, [x.shape[0]!, channels, x.size / x.shape[0]! / channels]),
  );
};

const CASES: readonly Case[] = [
  { name: "linear", weight: [40, 36], input: [2, 3, 36], apply: (x, weight, bias) => ops.linear(x, weight, bias) },
  { name: "linear without bias", weight: [40, 36], input: [5, 36], apply: (x, weight) => ops.linear(x, weight) },
  { name: "1×1 convolution", weight: [40, 36, 1, 1], input: [2, 36, 3, 4], apply: pointwise },
  {
    name: "3×3 convolution",
    weight: [40, 36, 3, 3],
    input: [2, 36, 4, 5],
    apply: (x, weight, bias) => ops.conv(x, weight, bias, { padding: 1 }),
  },
  {
    name: "3×3 convolution that Winograd's algorithm would take",
    weight: [64, 64, 3, 3],
    input: [1, 64, 32, 32],
    apply: (x, weight) => ops.conv(x, weight, undefined, { padding: 1 }),
  },
  {
    name: "convolution of stride 2 with padding on two sides",
    weight: [33, 36, 3, 3],
    input: [1, 36, 7, 8],
    apply: (x, weight, bias) => ops.conv(x, weight, bias, { stride: 2, padding: [0, 0, 1, 1] }),
  },
];

it.each(CASES)("$name is made of integers, exactly", async ({ weight: shape, input, apply }) => {
  const graph = new Graph();
  const x = graph.input("x", "float32", input);
  const weight = await int8Weight(graph, "layer.weight", shape);
  const bias = graph.constant(randn([shape[0]!], { generator: new Generator(7) }));
  const y = apply(x, weight.inFile, bias);
  const dy = graph.constant(exactValues(y.shape, 9));
  graph.output("y", y);
  graph.output("dx", gradients(ops.reduceSum(ops.mul(y, dy)), [x])[0]!);
  graph.output("expected y", apply(x, weight.forward, bias));
  const other = apply(x, weight.gradient, bias);
  graph.output("expected dx", gradients(ops.reduceSum(ops.mul(other, dy)), [x])[0]!);
  const compiled = await compile(graph, { device: "cpu" });
  const result = await compiled.run({ x: exactValues(input, 3) });
  for (const name of ["y", "dx"]) {
    const [made, expected] = [result[name]!, result[`expected ${name}`]!] as Tensor<"float32">[];
    expect(relativeError(made!.data, expected!.data)).toBeLessThan(ROUNDING);
  }
  await compiled.release();
});

it("the halves of a GEGLU layer are products with blocks of its weight", async () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", [6, 36]);
  const { inFile, forward } = await int8Weight(graph, "a.ff.net.0.proj.weight", [80, 36]);
  graph.output("y", ops.geglu(ops.linear(x, inFile)));
  graph.output("expected", ops.geglu(ops.linear(x, forward)));
  expect(graph.nodes.filter(({ op, inputs }) => op === "Slice" && inputs[0]!.shape[1] === 80)).toEqual([]);
  const compiled = await compile(graph, { device: "cpu" });
  const { y, expected } = (await compiled.run({ x: exactValues([6, 36], 3) })) as Record<string, Tensor<"float32">>;
  expect(relativeError(y!.data, expected!.data)).toBeLessThan(ROUNDING);
  await compiled.release();
});

it("unequal parts of a layer are products with one or several blocks of its weight, and so is the whole", async () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", [6, 36]);
  const { inFile, forward } = await int8Weight(graph, "attn.to_qkv_mlp_proj.weight", [324, 36]);
  const bias = graph.constant(randn([324], { generator: new Generator(7) }));
  for (const [name, weight] of Object.entries({ y: inFile, expected: forward })) {
    const whole = ops.linear(x, weight, bias);
    const parts = ops.splitFeatures(whole, [36, 36, 36, 108, 108]);
    graph.output(name, ops.concat([...parts, whole], -1));
  }
  expect(graph.nodes.some(({ op }) => op === "Slice")).toBe(false);
  const { bytes } = lower(graph, "cpu");
  expect(operatorsOf(bytes).filter((op) => op === "MatMulIntegerToFloat")).toHaveLength(18);
  const compiled = await compile(graph, { device: "cpu" });
  const { y, expected } = (await compiled.run({ x: exactValues([6, 36], 3) })) as Record<string, Tensor<"float32">>;
  expect(relativeError(y!.data, expected!.data)).toBeLessThan(ROUNDING);
  await compiled.release();
});

it.each([
  ["layer.weight", [40, 36]],
  ["a.ff.net.0.proj.weight", [80, 36]],
  ["layer.weight", [40, 36, 3, 3]],
] as const)("%s of %s is float32 for whatever takes no integers", async (name, shape) => {
  const graph = new Graph();
  const { inFile, forward } = await int8Weight(graph, name, shape);
  const scale = graph.input("scale", "float32", []);
  graph.output("y", ops.mul(inFile, scale));
  graph.output("expected", ops.mul(forward, scale));
  const compiled = await compile(graph, { device: "cpu" });
  const { y, expected } = (await compiled.run({ scale: tensor([2], []) })) as Record<string, Tensor<"float32">>;
  expect(y!.data).toEqual(expected!.data);
  await compiled.release();
});

it("integers are the nearest, per output channel forward and per input channel for the gradient", () => {
  const shape = [3, 4, 2, 1];
  const { data } = randn(shape, { generator: new Generator(1) });
  data.fill(0, 0, 8);
  for (const side of ["forward", "gradient"] as const) {
    const { data: made } = weightOf(data, shape, 1, side);
    const { scale, gradientScale } = toInt8(data, shape, 1, ownInt8Range());
    for (let i = 0; i < sizeOf(shape); i++) {
      const step = side === "forward" ? scale[Math.floor(i / 8)]! : gradientScale[Math.floor(i / 2) % 4]!;
      expect(Math.abs(made[i]! - data[i]!)).toBeLessThanOrEqual(step / 2 + 1e-7);
      if (i < 8 && side === "forward") expect(made[i]).toBeCloseTo(0, 12);
    }
  }
});
