import { describe, expect, it } from "vitest";
import { checkGradients, runGraph } from "../../test/support/check-gradients.js";
import { relativeError } from "../../test/support/relative-error.js";
import * as ops from "../graph/index.js";
import { Graph, type Value } from "../graph/index.js";
import { Generator, rand, randn } from "../tensor/random.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { gradients } from "./gradients.js";
import { NoGradient, RULES } from "./rules.js";

const generator = new Generator(7);
/** Positive values away from 0. */
const positive = (shape: number[]) =>
  tensor(
    rand(shape, { generator }).data.map((x) => x + 0.5),
    shape,
  );
/** Values at least 0.1 away from 0, where relu has its kink. */
const awayFromZero = (shape: number[]) =>
  tensor(
    randn(shape, { generator }).data.map((x) => x + Math.sign(x) * 0.1),
    shape,
  );

const checked = new Set<string>();
const covers = (...names: string[]) => {
  for (const name of names) checked.add(name);
};

describe("gradients agree with finite differences", () => {
  for (const [name, op] of Object.entries({ Add: ops.add, Sub: ops.sub, Mul: ops.mul, Div: ops.div })) {
    it(`${name}, broadcasting both ways`, async () => {
      covers(name);
      await checkGradients({
        inputs: { a: [2, 1, 3], b: name === "Div" ? positive([4, 3]) : [4, 3] },
        build: ({ a, b }) => op(a!, b!),
      });
    });
  }

  const unary = {
    Neg: ops.neg,
    Exp: ops.exp,
    Log: ops.log,
    Sqrt: ops.sqrt,
    Sin: ops.sin,
    Cos: ops.cos,
    Sigmoid: ops.sigmoid,
    Tanh: ops.tanh,
    Relu: ops.relu,
    Silu: ops.silu,
    Gelu: ops.gelu,
    GeluTanh: ops.geluTanh,
    QuickGelu: ops.quickGelu,
    Erf: ops.erf,
  };
  for (const [name, op] of Object.entries(unary)) {
    it(name, async () => {
      covers(name);
      const x = name === "Log" || name === "Sqrt" ? positive([3, 5]) : awayFromZero([3, 5]);
      await checkGradients({ inputs: { x }, build: ({ x }) => op(x!) });
    });
  }

  it("Where, into the chosen side only", async () => {
    covers("Where");
    const condition = tensor(Uint8Array.of(1, 0, 1, 0, 0, 1), [2, 3], "bool");
    await checkGradients({
      inputs: { a: [2, 3], b: [3] },
      fixed: { condition },
      build: ({ condition, a, b }) => ops.where(condition!, a!, b!),
    });
  });

  for (const keepDims of [true, false]) {
    it(`ReduceSum and ReduceMean, keepDims ${keepDims}`, async () => {
      covers("ReduceSum", "ReduceMean");
      await checkGradients({ inputs: { x: [2, 3, 4] }, build: ({ x }) => ops.reduceSum(x!, [0, 2], keepDims) });
      await checkGradients({ inputs: { x: [2, 3, 4] }, build: ({ x }) => ops.reduceMean(x!, [-1], keepDims) });
    });
  }

  it("Softmax", async () => {
    covers("Softmax");
    await checkGradients({ inputs: { x: [3, 5] }, build: ({ x }) => ops.softmax(x!) });
  });

  it("operators that move elements", async () => {
    covers("Reshape", "Transpose", "Concat", "Slice", "Pad", "Expand");
    await checkGradients({ inputs: { x: [2, 6] }, build: ({ x }) => ops.exp(ops.reshape(x!, [3, 4])) });
    await checkGradients({ inputs: { x: [2, 3, 4] }, build: ({ x }) => ops.transpose(x!, [2, 0, 1]) });
    await checkGradients({ inputs: { a: [2, 3], b: [2, 1] }, build: ({ a, b }) => ops.concat([a!, b!, a!], 1) });
    await checkGradients({ inputs: { x: [2, 5] }, build: ({ x }) => ops.slice(x!, 1, 1, 4) });
    await checkGradients({ inputs: { x: [2, 3] }, build: ({ x }) => ops.pad(x!, 1, 1, 2) });
    await checkGradients({ inputs: { x: [2, 1, 3] }, build: ({ x }) => ops.expand(x!, [4, 2, 5, 3]) });
  });

  it("Gather, with repeated indices", async () => {
    covers("Gather");
    const indices = tensor([3, 0, 3, 1, 3, 2], [2, 3], "int64");
    await checkGradients({
      inputs: { table: [5, 4] },
      fixed: { indices },
      build: ({ table, indices }) => ops.gather(table!, indices!),
    });
  });

  it("MatMul, every transposition, batched and broadcast", async () => {
    covers("MatMul");
    for (const transposeA of [false, true]) {
      for (const transposeB of [false, true]) {
        const a = transposeA ? [4, 3] : [3, 4];
        const b = transposeB ? [5, 4] : [4, 5];
        const build = ({ a, b }: Record<string, Value>) => ops.matMul(a!, b!, { transposeA, transposeB });
        await checkGradients({ inputs: { a, b }, build });
        await checkGradients({ inputs: { a: [2, ...a], b: [2, ...b] }, build });
        await checkGradients({ inputs: { a: [2, ...a], b }, build });
        await checkGradients({ inputs: { a, b: [2, ...b] }, build });
      }
    }
  });

  it("Linear, weight and bias included", async () => {
    covers("Linear");
    await checkGradients({
      inputs: { x: [2, 3, 4], weight: [5, 4], bias: [5] },
      build: ({ x, weight, bias }) => ops.linear(x!, weight!, bias!),
    });
  });

  it("Geglu", async () => {
    covers("Geglu");
    await checkGradients({ inputs: { x: [2, 3, 8] }, build: ({ x }) => ops.geglu(x!) });
  });

  it("Geglu of a frozen linear layer with its adapters, made as two products", async () => {
    const weight = randn([8, 4], { generator: new Generator(5) });
    const bias = randn([8], { generator: new Generator(6) });
    await checkGradients({
      inputs: { x: [2, 3, 4], down: [2, 4], up: [8, 2] },
      build: ({ x, down, up }) => {
        const frozen = ops.linear(x!, x!.graph.constant(weight), x!.graph.constant(bias));
        return ops.geglu(ops.add(frozen, ops.linear(ops.linear(x!, down!), up!)));
      },
    });
  });

  it("Swiglu", async () => {
    covers("Swiglu");
    await checkGradients({ inputs: { a: [2, 3, 4], b: [2, 3, 4] }, build: ({ a, b }) => ops.swiglu(a!, b!) });
  });

  it("unequal parts of a frozen linear layer with its adapters, made as products of their own", async () => {
    const weight = randn([7, 4], { generator: new Generator(5) });
    await checkGradients({
      inputs: { x: [2, 3, 4], down: [2, 4], up: [7, 2] },
      build: ({ x, down, up }) => {
        const frozen = ops.linear(x!, x!.graph.constant(weight));
        const [a, b] = ops.splitFeatures(ops.add(frozen, ops.linear(ops.linear(x!, down!), up!)), [3, 4]);
        return ops.concat([ops.sigmoid(b!), ops.mul(a!, a!)], -1);
      },
    });
  });

  const convolutions = {
    "3×3": { kernel: 3, options: { padding: 1 }, size: [5, 6] },
    "3×3, stride 2": { kernel: 3, options: { padding: 1, stride: 2 }, size: [6, 6] },
    "3×3, stride 2, odd size": { kernel: 3, options: { padding: 1, stride: 2 }, size: [5, 7] },
    "3×3, stride 2, padded right and below": { kernel: 3, options: { padding: [0, 0, 1, 1], stride: 2 }, size: [6, 4] },
    "3×3, of more channels than pixels": { kernel: 3, options: { padding: 1 }, size: [1, 3] },
    "1×1": { kernel: 1, options: {}, size: [3, 4] },
  } as const;
  for (const [name, { kernel, options, size }] of Object.entries(convolutions)) {
    it(`Conv ${name}, kernel and bias included`, async () => {
      covers("Conv");
      await checkGradients({
        inputs: { x: [2, 3, ...size], weight: [4, 3, kernel, kernel], bias: [4] },
        build: ({ x, weight, bias }) => ops.conv(x!, weight!, bias!, options),
        step: 5e-2,
      });
    });
  }

  it("nearest upsampling and block sums", async () => {
    covers("UpsampleNearest", "SumPool");
    await checkGradients({ inputs: { x: [1, 2, 2, 3] }, build: ({ x }) => ops.upsampleNearest(x!) });
    await checkGradients({ inputs: { x: [1, 2, 4, 6] }, build: ({ x }) => ops.sumPool(x!) });
  });

  it("GroupNorm, scale and shift included", async () => {
    covers("GroupNorm");
    await checkGradients({
      inputs: { x: [2, 6, 3, 3], weight: [6], bias: [6] },
      build: ({ x, weight, bias }) => ops.groupNorm(x!, weight!, bias!, 3, 1e-5).y,
    });
  });

  it("LayerNorm, scale and shift included", async () => {
    covers("LayerNorm");
    await checkGradients({
      inputs: { x: [2, 3, 6], weight: [6], bias: [6] },
      build: ({ x, weight, bias }) => ops.layerNorm(x!, weight!, bias!, 1e-5).y,
    });
  });

  it("LayerNorm without scale and shift", async () => {
    await checkGradients({
      inputs: { x: [2, 3, 6] },
      build: ({ x }) => ops.layerNorm(x!, undefined, undefined, 1e-6).y,
    });
  });

  it("RmsNorm, with and without scale", async () => {
    covers("RmsNorm");
    await checkGradients({
      inputs: { x: [2, 3, 2, 6], weight: [6] },
      build: ({ x, weight }) => ops.rmsNorm(x!, weight!, 1e-6),
    });
    await checkGradients({ inputs: { x: [2, 3, 6] }, build: ({ x }) => ops.rmsNorm(x!, undefined, 1e-5) });
  });

  for (const pairs of ["adjacent", "halves"] as const) {
    it(`Rotary of ${pairs}`, async () => {
      covers("Rotary");
      const angles = rand([5, 3], { generator }).data.map((value) => 6 * value);
      const [cos, sin] = [Math.cos, Math.sin].map((of) => tensor(angles.map(of), [5, 3])) as [Tensor, Tensor];
      await checkGradients({
        inputs: { x: [2, 5, 12] },
        fixed: { cos, sin },
        build: ({ x, cos, sin }) => ops.rotary(x!, cos!, sin!, { heads: 2, pairs }),
      });
    });
  }

  for (const [name, causal, keys, features] of [
    ["self", false, 5, 8],
    ["cross", false, 3, 6],
    ["causal", true, 5, 10],
  ] as const) {
    it(`Attention, ${name}`, async () => {
      covers("Attention");
      await checkGradients({
        inputs: { q: [2, 5, features], k: [2, keys, features], v: [2, keys, features] },
        build: ({ q, k, v }) => ops.attention(q!, k!, v!, { heads: 2, causal }),
        tolerance: 4e-3,
      });
    });
  }

  it("Attention whose keys and values serve several heads", async () => {
    await checkGradients({
      inputs: { q: [2, 5, 12], k: [2, 3, 4], v: [2, 3, 4] },
      build: ({ q, k, v }) => ops.attention(q!, k!, v!, { heads: 6, keyHeads: 2 }),
      tolerance: 4e-3,
    });
  });

  it("covers every operator that has a rule", () => {
    const ruled = Object.entries(RULES).filter(([, rule]) => !(rule instanceof NoGradient));
    expect(ruled.map(([name]) => name).filter((name) => !checked.has(name))).toEqual(["StopGradient"]);
  });
});

describe("attention's gradients by blocks are those of plain products", () => {
  const cases = {
    // 2·4 heads × 1536 × 1536 probabilities exceed one block, so that queries and heads are cut.
    "queries and heads cut": { batch: 2, queries: 1536, keys: 1536 },
    // Rows of 1024 scores are made longer.
    "a multiple of 1024 keys": { batch: 1, queries: 96, keys: 1024 },
    "a multiple of 1024 keys, queries and heads cut": { batch: 1, queries: 1100, keys: 2048 },
  };
  for (const [name, { batch, queries, keys }] of Object.entries(cases)) {
    it(name, async () => {
      const [heads, width] = [4, 2];
      const shapes = { q: queries, k: keys, v: keys };
      const graph = new Graph();
      const inputs = Object.entries(shapes).map(([name, tokens]) =>
        graph.input(name, "float32", [batch, tokens, heads * width]),
      );
      const [q, k, v] = inputs as [Value, Value, Value];
      const split = (x: Value) => ops.transpose(ops.reshape(x, [batch, x.shape[1]!, heads, width]), [0, 2, 1, 3]);
      const scores = ops.mul(ops.matMul(split(q), split(k), { transposeB: true }), width ** -0.5);
      const merged = ops.transpose(ops.matMul(ops.softmax(scores), split(v)), [0, 2, 1, 3]);
      const plain = ops.reshape(merged, q.shape);
      const fused = ops.attention(q, k, v, { heads });
      for (const [name, y] of Object.entries({ plain, fused })) {
        gradients(ops.reduceSum(ops.mul(y, y)), inputs).forEach((gradient, i) => {
          graph.output(`${name}.${i}`, gradient);
        });
      }
      const feeds = Object.fromEntries(inputs.map(({ shape }, i) => ["qkv"[i]!, randn(shape, { generator })]));
      const result = await runGraph(graph, feeds);
      for (let i = 0; i < 3; i++) {
        const [got, wanted] = ["fused", "plain"].map((name) => result[`${name}.${i}`]!.data as Float32Array);
        expect(relativeError(got!, wanted!)).toBeLessThan(1e-5);
      }
    });
  }
});

describe("what gradients refuses and leaves out", () => {
  it("names an operator without a gradient", () => {
    const graph = new Graph();
    const x = graph.input("x", "float32", [2]);
    const loss = ops.reduceSum(ops.cast(ops.cast(x, "int32"), "float32"));
    expect(() => gradients(loss, [x])).toThrow(/Cast has no gradient/);
  });

  it("names a second derivative through attention", () => {
    const graph = new Graph();
    const x = graph.input("x", "float32", [1, 2, 4]);
    const [first] = gradients(ops.reduceSum(ops.attention(x, x, x, { heads: 1 })), [x]);
    expect(() => gradients(ops.reduceSum(first!), [x])).toThrow(/AttentionGradient has no gradient/);
  });

  it("rejects a loss that is not one number", () => {
    const graph = new Graph();
    const x = graph.input("x", "float32", [2]);
    expect(() => gradients(x, [x])).toThrow(/one float32 number; got float32\[2\]/);
  });

  it("adds no node for the gradient of a frozen weight", () => {
    const graph = new Graph();
    const x = graph.input("x", "float32", [4, 3]);
    const weight = graph.input("weight", "float32", [5, 3]);
    const loss = ops.reduceSum(ops.linear(x, weight));
    const before = graph.nodes.length;
    gradients(loss, [x]);
    const added = graph.nodes.slice(before);
    expect(added.some((node) => node.outputs.some((output) => ops.sameShape(output.shape, weight.shape)))).toBe(false);
  });

  it("stops at stopGradient", async () => {
    const graph = new Graph();
    const x = graph.input("x", "float32", [2]);
    const [gradient] = gradients(ops.reduceSum(ops.mul(x, ops.stopGradient(x))), [x]);
    graph.output("gradient", gradient!);
    const result = await runGraph(graph, { x: tensor([3, 5]) });
    expect([...(result.gradient!.data as Float32Array)]).toEqual([3, 5]);
  });

  it("gives zeros for a value that the loss does not depend on", async () => {
    const graph = new Graph();
    const x = graph.input("x", "float32", [2]);
    const other = graph.input("other", "float32", [2]);
    const [gradient] = gradients(ops.reduceSum(x), [other]);
    graph.output("gradient", gradient!);
    const result = await runGraph(graph, { x: tensor([3, 5]), other: tensor([1, 1]) });
    expect([...(result.gradient!.data as Float32Array)]).toEqual([0, 0]);
  });

  it("takes the gradient of a norm as 0 at 0, without NaN", async () => {
    const graph = new Graph();
    const x = graph.input("x", "float32", [3]);
    const [gradient] = gradients(ops.sqrt(ops.reduceSum(ops.mul(x, x))), [x]);
    graph.output("gradient", gradient!);
    const result = await runGraph(graph, { x: tensor([0, 0, 0]) });
    expect([...(result.gradient!.data as Float32Array)]).toEqual([0, 0, 0]);
  });
});
