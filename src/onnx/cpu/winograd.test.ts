import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { runGraph } from "../../../test/support/check-gradients.js";
import { relativeError } from "../../../test/support/relative-error.js";
import { convInputGradient } from "../../graph/convolution.js";
import * as ops from "../../graph/index.js";
import { Graph, type Value } from "../../graph/index.js";
import { openSafetensors, writeSafetensors } from "../../storage/index.js";
import { Generator, randn } from "../../tensor/random.js";
import { lower, type Target } from "../index.js";

/** Twice what the plain sum itself is off, and room for other processors. */
const TOLERANCE = 5e-6;
const folder = mkdtempSync(join(tmpdir(), "fera-winograd-"));
afterAll(() => rmSync(folder, { recursive: true }));

interface Shapes {
  batch?: number;
  channels: number;
  out: number;
  height: number;
  width: number;
}

const CASES: Record<string, Shapes> = {
  "sides that are multiples of the tile": { channels: 96, out: 64, height: 32, width: 48 },
  "sides that end within a tile": { channels: 128, out: 160, height: 31, width: 45 },
  "several samples of large images": { batch: 2, channels: 96, out: 128, height: 34, width: 32 },
  "several samples": { batch: 3, channels: 256, out: 192, height: 18, width: 16 },
  "several samples, sides that end within a tile": { batch: 2, channels: 256, out: 192, height: 19, width: 17 },
  "small images, transformed whole": { batch: 8, channels: 128, out: 160, height: 8, width: 8 },
  "small images, whole, with sides that end within a tile": { batch: 16, channels: 128, out: 128, height: 7, width: 5 },
  "weights transformed in blocks, of several samples": { batch: 2, channels: 640, out: 560, height: 16, width: 20 },
  "weights transformed in blocks": { channels: 640, out: 560, height: 16, width: 20 },
  "weights transformed in blocks, of a large image": { channels: 800, out: 320, height: 64, width: 48 },
};

const isTransformed = (graph: Graph): boolean =>
  new TextDecoder("latin1").decode(lower(graph, "cpu").bytes).includes("winograd");

/** Runs a graph as it is lowered for the CPU and with plain operators. */
async function bothWays(build: (graph: Graph) => Value, feeds: Parameters<typeof runGraph>[1]) {
  const results = [];
  for (const target of ["cpu", "portable"] as Target[]) {
    const graph = new Graph();
    graph.output("y", build(graph));
    if (target === "cpu") expect(isTransformed(graph)).toBe(true);
    results.push((await runGraph(graph, feeds, target)).y!);
  }
  return results.map(({ data }) => data as Float32Array) as [Float32Array, Float32Array];
}

describe("a 3×3 convolution by Winograd's algorithm agrees with the plain operator", () => {
  for (const [name, { batch = 1, channels, out, height, width }] of Object.entries(CASES)) {
    const generator = new Generator(3);
    const weight = randn([out, channels, 3, 3], { generator });
    const input = (graph: Graph, name: string, shape: readonly number[]) => graph.input(name, "float32", shape);

    it(`${name}: forward, with bias`, async () => {
      const feeds = { x: randn([batch, channels, height, width], { generator }), weight, bias: randn([out]) };
      const [fast, plain] = await bothWays((graph) => {
        const [x, w, b] = Object.entries(feeds).map(([key, { shape }]) => input(graph, key, shape));
        return ops.conv(x!, w!, b!, { padding: 1 });
      }, feeds);
      expect(relativeError(fast, plain)).toBeLessThan(TOLERANCE);
    });

    it(`${name}: gradient of the image`, async () => {
      const feeds = { dy: randn([batch, out, height, width], { generator }), weight };
      const [fast, plain] = await bothWays((graph) => {
        const [dy, w] = Object.entries(feeds).map(([key, { shape }]) => input(graph, key, shape));
        const attributes = { stride: 1, padding: [1, 1, 1, 1] } as const;
        return convInputGradient(dy!, w!, attributes, [batch, channels, height, width]);
      }, feeds);
      expect(relativeError(fast, plain)).toBeLessThan(TOLERANCE);
    });
  }

  it("takes blocks of a weight out of its file", async () => {
    const generator = new Generator(4);
    const path = join(folder, "weights.safetensors");
    await writeSafetensors(path, new Map([["w", randn([640, 480, 3, 3], { generator })]]));
    const file = await openSafetensors(path);
    const entry = file.entries.get("w")!;
    const x = randn([1, 480, 16, 16], { generator });
    const [fast, plain] = await bothWays(
      (graph) => {
        const range = { path: file.path, offset: entry.offset, length: entry.length };
        const weight = graph.file("w", "float32", entry.shape, range);
        const first = ops.conv(graph.input("x", "float32", x.shape), weight, undefined, { padding: 1 });
        // The same blocks are needed twice.
        return convInputGradient(first, weight, { stride: 1, padding: [1, 1, 1, 1] }, x.shape);
      },
      { x },
    );
    expect(relativeError(fast, plain)).toBeLessThan(2 * TOLERANCE);
  });
});

it("embeds an embedded weight once, in the blocks that it is transformed in", async () => {
  const generator = new Generator(4);
  const weight = randn([640, 480, 3, 3], { generator });
  const x = randn([1, 480, 16, 16], { generator });
  const thereAndBack = (graph: Graph) => {
    const w = graph.constant(weight);
    const y = ops.conv(graph.input("x", "float32", x.shape), w, undefined, { padding: 1 });
    return convInputGradient(y, w, { stride: 1, padding: [1, 1, 1, 1] }, x.shape);
  };
  const [fast, plain] = await bothWays(thereAndBack, { x });
  expect(relativeError(fast, plain)).toBeLessThan(2 * TOLERANCE);
  const graph = new Graph();
  graph.output("y", thereAndBack(graph));
  expect(lower(graph, "cpu").bytes.length).toBeLessThan(1.05 * 4 * weight.size);
});

describe("the plain operator stays", () => {
  const plainly = (x: number[], w: number[], options: ops.ConvolutionOptions) => {
    const graph = new Graph();
    graph.output("y", ops.conv(graph.input("x", "float32", x), graph.input("w", "float32", w), undefined, options));
    return !isTransformed(graph);
  };

  it("where the transformed weights would cost more than they save", () => {
    expect(plainly([1, 1280, 8, 8], [1280, 1280, 3, 3], { padding: 1 })).toBe(true);
    expect(plainly([1, 4, 64, 64], [320, 4, 3, 3], { padding: 1 })).toBe(true);
    expect(plainly([1, 1280, 16, 16], [1280, 1280, 3, 3], { padding: 1 })).toBe(false);
  });

  it("for other kernels, strides and paddings", () => {
    expect(plainly([1, 320, 64, 64], [320, 320, 3, 3], { padding: 1, stride: 2 })).toBe(true);
    expect(plainly([1, 320, 64, 64], [320, 320, 3, 3], { padding: [0, 0, 1, 1] })).toBe(true);
    expect(plainly([1, 320, 64, 64], [320, 320, 5, 5], { padding: 1 })).toBe(true);
    expect(plainly([1, 320, 64, 64], [320, 320, 3, 3], { padding: 1 })).toBe(false);
  });
});
