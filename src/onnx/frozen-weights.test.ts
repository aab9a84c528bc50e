import { mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { gradients } from "../autodiff/index.js";
import * as ops from "../graph/index.js";
import { Graph, type Value } from "../graph/index.js";
import { compile } from "../runtime/index.js";
import { activationMemory } from "./activation-memory.js";
import "../runtime/node.js";
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from "../tensor/float16.js";
import { Generator, randn } from "../tensor/random.js";
import { tensor } from "../tensor/tensor.js";
import { lower } from "./index.js";

const TYPES = {
  float16: { encode: float32ToFloat16, decode: float16ToFloat32 },
  bfloat16: { encode: float32ToBfloat16, decode: bfloat16ToFloat32 },
} as const;

let folder: string;

beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), "fera-frozen-")));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** Writes random weights and gives them as a value in the file, and the very same numbers as a constant. */
async function frozen(graph: Graph, name: string, shape: readonly number[], stored: keyof typeof TYPES) {
  const bits = TYPES[stored].encode(randn(shape, { generator: new Generator(name.length) }).data);
  const path = join(folder, name);
  // Not at the beginning: offsets in safetensors files are what they are.
  await writeFile(path, Buffer.concat([Buffer.alloc(6), Buffer.from(bits.buffer)]));
  const range = { path, offset: 6, length: bits.byteLength, stored };
  return {
    inFile: graph.file(name, "float32", shape, range),
    constant: graph.constant(tensor(TYPES[stored].decode(bits), shape)),
  };
}

it.each(["float16", "bfloat16"] as const)("rows of a %s table are taken and widened", async (stored) => {
  const graph = new Graph();
  const { inFile, constant } = await frozen(graph, "table", [9, 5], stored);
  const indices = graph.input("indices", "int64", [4]);
  graph.output("y", ops.gather(inFile, indices));
  graph.output("expected", ops.gather(constant, indices));
  const compiled = await compile(graph, { device: "cpu" });
  const { y, expected } = await compiled.run({ indices: tensor(BigInt64Array.of(8n, 0n, 3n, 3n), [4]) });
  expect(y!.data).toEqual(expected!.data);
  await compiled.release();
});

it.each(["float16", "bfloat16"] as const)(
  "layers, convolutions, blocks of rows and gradients take %s weights as they take float32 ones",
  async (stored) => {
    const graph = new Graph();
    const image = graph.input("image", "float32", [1, 8, 16, 16]);
    const kernel = await frozen(graph, "kernel", [8, 8, 3, 3], stored);
    const matrix = await frozen(graph, "matrix", [12, 16], stored);
    const halves = await frozen(graph, "halves", [24, 12], stored);
    const build = (choose: (weight: typeof kernel) => Value) => {
      const convolved = ops.conv(image, choose(kernel), undefined, { padding: 1 });
      return ops.geglu(ops.linear(ops.linear(convolved, choose(matrix)), choose(halves)));
    };
    for (const [name, y] of [
      ["", build(({ inFile }) => inFile)],
      ["expected ", build(({ constant }) => constant)],
    ] as const) {
      graph.output(`${name}y`, y);
      graph.output(`${name}gradient`, gradients(ops.reduceSum(ops.mul(y, y)), [image])[0]!);
    }
    const compiled = await compile(graph, { device: "cpu" });
    const result = await compiled.run({ image: randn([1, 8, 16, 16]) });
    for (const name of ["y", "gradient"]) expect(result[name]!.data).toEqual(result[`expected ${name}`]!.data);
    await compiled.release();
  },
);

it("a widened weight is made right before it is used, and let go after", async () => {
  const peakOf = async (layers: number) => {
    const graph = new Graph();
    const x = graph.input("x", "float32", [4, 64]);
    let y: Value = x;
    for (let i = 0; i < layers; i++) {
      const { inFile } = await frozen(graph, `w${"x".repeat(i)}`, [64, 64], "float16");
      y = ops.tanh(ops.linear(y, inFile));
    }
    const loss = ops.reduceSum(ops.mul(y, y));
    graph.output("gradient", gradients(loss, [x])[0]!);
    return activationMemory(lower(graph, "cpu").bytes).peakBytes;
  };
  const weight = 4 * 64 * 64;
  const more = (await peakOf(8)) - (await peakOf(4));
  // What four layers more have to keep for the gradient is far less than one weight.
  expect(more).toBeLessThan(weight / 2);
});
