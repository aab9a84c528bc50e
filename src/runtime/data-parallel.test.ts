import { availableParallelism } from "node:os";
import { expect, it } from "vitest";
import type { Graph } from "../graph/index.js";
import * as ops from "../graph/index.js";
import { Generator, randn } from "../tensor/random.js";
import { tensor } from "../tensor/tensor.js";
import { compileDataParallel, partsOf } from "./data-parallel.js";
import "./node.js";

const THREADS = Math.min(2, availableParallelism());

/** The mean square of x·w over a batch `[B, 3]`, and its gradient for w `[3, 1]`. */
function regression(graph: Graph, batchSize: number): void {
  const x = graph.input("x", "float32", [batchSize, 3]);
  const w = graph.input("w", "float32", [3, 1]);
  const y = ops.matMul(x, w);
  graph.output("loss", ops.reduceMean(ops.mul(y, y)));
  graph.output("gradient", ops.mul(ops.matMul(ops.transpose(x, [1, 0]), y), 2 / batchSize));
}

it("divides a batch into equal parts that leave few threads idle", () => {
  const parts = [
    [1, 8, 1],
    [8, 1, 1],
    [8, 2, 2],
    [8, 6, 2],
    [8, 7, 2],
    [4, 7, 2],
    [8, 16, 8],
    [3, 2, 1],
    [3, 4, 3],
    [6, 4, 2],
    [7, 4, 1],
  ] as const;
  for (const [batchSize, threads, expected] of parts) {
    expect(partsOf(batchSize, threads), `${batchSize} samples on ${threads} threads`).toBe(expected);
  }
});

it("gives the mean over the whole batch, whatever the parts", async () => {
  const generator = new Generator(1);
  const batch = { x: randn([6, 3], { generator }) };
  const shared = { w: randn([3, 1], { generator }) };
  const results = [];
  for (const threads of [1, THREADS]) {
    const graph = await compileDataParallel(regression, { batchSize: 6, parameterBytes: 12, threads });
    expect(graph.parts).toBe(threads);
    results.push(await graph.run(batch, shared));
    await graph.release();
  }
  for (const name of ["loss", "gradient"]) {
    const [whole, divided] = results.map((result) => result[name]!);
    expect(divided!.shape).toEqual(whole!.shape);
    whole!.data.forEach((value, i) => {
      expect(Number(divided!.data[i])).toBeCloseTo(Number(value), 5);
    });
  }
});

it("gives the same bits whenever a batch is divided into as many copies", async () => {
  const generator = new Generator(2);
  const batch = { x: randn([8, 3], { generator }) };
  const shared = { w: randn([3, 1], { generator }) };
  const results = [];
  for (let round = 0; round < 2; round++) {
    const graph = await compileDataParallel(regression, { batchSize: 8, parameterBytes: 12, threads: THREADS });
    results.push(await graph.run(batch, shared));
    await graph.release();
  }
  expect(results[1]).toEqual(results[0]);
});

it("keeps one graph for large models and for batches without equal parts", async () => {
  for (const [batchSize, parameterBytes] of [
    [2, 3e9],
    [1, 12],
  ] as const) {
    const graph = await compileDataParallel(regression, { batchSize, parameterBytes, threads: THREADS });
    expect(graph.parts).toBe(1);
    await graph.release();
  }
});

it("names an input with another number of samples", async () => {
  const graph = await compileDataParallel(regression, { batchSize: 2, parameterBytes: 12, threads: THREADS });
  const w = tensor([1, 1, 1], [3, 1]);
  await expect(graph.run({ x: randn([4, 3]) }, { w })).rejects.toThrow(
    /input "x" must be float32\[2,3\]; got .*\[4,3\]/,
  );
  await expect(graph.run({ x: randn([2, 3]) }, {})).rejects.toThrow(/input "w" is missing/);
  await graph.release();
});

it("reads inputs in shared memory anew at every run, and gives what it gives for others", async () => {
  const batch = { x: randn([6, 3], { generator: new Generator(1) }) };
  const w = tensor(new Float32Array(new SharedArrayBuffer(12)), [3, 1]);
  const graph = await compileDataParallel(regression, { batchSize: 6, parameterBytes: 12, threads: THREADS });
  for (const values of [
    [1, 2, 3],
    [-4, 0, 0.5],
  ]) {
    w.data.set(values);
    expect(await graph.run(batch, { w })).toEqual(await graph.run(batch, { w: tensor(values, [3, 1]) }));
  }
  await graph.release();
});

it("adds up long outputs as short ones", async () => {
  const size = 1000;
  const build = (graph: Graph, batchSize: number) => {
    const x = graph.input("x", "float32", [batchSize, size]);
    graph.output("mean", ops.reduceMean(x, [0]));
  };
  const x = randn([4, size], { generator: new Generator(1) });
  const graph = await compileDataParallel(build, { batchSize: 4, parameterBytes: 4, threads: THREADS });
  const { mean } = await graph.run({ x }, {});
  mean!.data.forEach((value, i) => {
    const wanted = [0, 1, 2, 3].reduce((sum, row) => sum + x.data[row * size + i]! / 4, 0);
    expect(Number(value)).toBeCloseTo(wanted, 5);
  });
  await graph.release();
});
