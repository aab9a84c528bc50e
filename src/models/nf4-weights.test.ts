import { mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { gradients } from "../autodiff/index.js";
import * as ops from "../graph/index.js";
import { Graph, type Value } from "../graph/index.js";
import { compile } from "../runtime/index.js";
import "../runtime/node.js";
import { readSafetensors } from "../storage/index.js";
import "../storage/node.js";
import { safetensorsHead } from "../storage/safetensors.js";
import { openSafetensors } from "../storage/tensor-file.js";
import { Generator, randn } from "../tensor/random.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { fewBitWeights, shapeMetadata } from "./few-bits.js";
import { nf4, toNf4 } from "./nf4-weights.js";

const GOLDEN = "test/reference/nf4.safetensors";

let folder: string;

beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), "fera-nf4-")));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** A weight in a file in 4 bits, as a value of a graph. */
async function inFile(graph: Graph, name: string, { data, shape }: Tensor<"float32">): Promise<Value> {
  const path = join(folder, `${name}.safetensors`);
  const head = safetensorsHead(nf4.tensors(name, shape), shapeMetadata([[name, shape]]));
  await writeFile(path, Buffer.concat([head, ...nf4.bytes(name, data, shape)]));
  const { entries, metadata } = await openSafetensors(path);
  const [[, readShape, range]] = [...fewBitWeights(nf4, { path, entries, metadata })] as [
    readonly [string, readonly number[], Parameters<Graph["file"]>[3]],
  ];
  return graph.file(name, "float32", readShape, range);
}

it("codes and magnitudes are bitsandbytes', and so is what a graph makes of them", async () => {
  const { tensors } = await readSafetensors(GOLDEN);
  const weight = tensors.get("weight") as Tensor<"float32">;
  const { codes, absmax } = toNf4(weight.data);
  expect([...absmax]).toEqual([...tensors.get("absmax")!.data]);
  // What is zero throughout has no code that matters.
  const zeros = [...absmax.keys()].filter((block) => absmax[block] === 0).map((block) => block * 32);
  const isZero = (i: number) => zeros.some((start) => i >= start && i < start + 32);
  const expected = [...(tensors.get("codes")!.data as Int32Array)];
  expect([...codes].filter((_, i) => !isZero(i))).toEqual(expected.filter((_, i) => !isZero(i)));

  const graph = new Graph();
  const value = await inFile(graph, "w", weight);
  const scale = graph.input("scale", "float32", []);
  graph.output("y", ops.mul(value, scale));
  const compiled = await compile(graph, { device: "cpu" });
  const { y } = await compiled.run({ scale: tensor([1], []) });
  expect(y!.data).toEqual(tensors.get("dequantized")!.data);
  await compiled.release();
});

it("layers, halves of them, convolutions and gradients compute with the widened values", async () => {
  const graph = new Graph();
  const generator = new Generator(1);
  const image = graph.input("image", "float32", [1, 8, 8, 8]);
  const [kernel, matrix, halves] = [
    randn([8, 8, 3, 3], { generator }),
    randn([16, 8], { generator }),
    randn([32, 16], { generator }),
  ];
  const frozen = [
    await inFile(graph, "kernel", kernel),
    await inFile(graph, "matrix", matrix),
    await inFile(graph, "halves", halves),
  ];
  const build = ([a, b, c]: readonly Value[]) => {
    const y = ops.conv(image, a!, undefined, { padding: 1 });
    return ops.geglu(ops.linear(ops.linear(y, b!), c!));
  };
  // The same weights as what a run is fed: nothing of them is frozen, and nothing is in 4 bits.
  const widened = await Promise.all(
    frozen.map(async (value) => {
      const own = new Graph();
      own.output("y", ops.mul(own.file("w", "float32", value.shape, rangeOf(value)), own.scalar(1)));
      const compiled = await compile(own, { device: "cpu" });
      const { y } = await compiled.run({});
      await compiled.release();
      return y as Tensor<"float32">;
    }),
  );
  for (const [name, y] of [
    ["", build(frozen)],
    ["expected ", build(widened.map((value) => graph.constant(value)))],
  ] as const) {
    graph.output(`${name}y`, y);
    graph.output(`${name}gradient`, gradients(ops.reduceSum(ops.mul(y, y)), [image])[0]!);
  }
  const compiled = await compile(graph, { device: "cpu" });
  const result = await compiled.run({ image: randn([1, 8, 8, 8], { generator }) });
  for (const name of ["y", "gradient"]) expect(result[name]!.data).toEqual(result[`expected ${name}`]!.data);
  await compiled.release();
});

function rangeOf({ source }: Value) {
  if (source.kind !== "file") throw new Error("not in a file");
  return source.range;
}
