import { expect, it } from "vitest";
import { Generator, randn } from "./random.js";
import { compileKernel, quads } from "./simd-kernel.js";

const { add, sub, mul, div, sqrt } = quads;
const f = Math.fround;
const drawn = (size: number, seed: number) => randn([size], { generator: new Generator(seed) }).data.slice();

it("gives the bits of the same loop in float32, at any length", () => {
  const kernel = compileKernel(["x", "y"], ["a", "b"], ({ load, scalar, keep, store }) => {
    const x = load("x");
    const product = keep(mul(mul(x, x), scalar("a")));
    store("x", div(product, add(sqrt(product), scalar("b"))));
    store("y", sub(load("y"), product));
  })!;
  const [a, b] = [Math.PI, 1e-8];
  for (const size of [0, 1, 2, 3, 1000, 8191, 8192, 8193, 30_001]) {
    const [x, y] = [drawn(size, 1), drawn(size, 2)];
    const products = x.map((value) => f(value * value) * f(a));
    const wanted = {
      x: products.map((p) => p / f(f(Math.sqrt(p)) + f(b))),
      y: y.map((value, i) => value - products[i]!),
    };
    kernel({ x, y }, { a, b });
    expect({ x, y }).toEqual(wanted);
  }
});

it("works on shared memory, and writes nothing that it is not told to", () => {
  const kernel = compileKernel(["x", "y"], [], ({ load, store }) => store("y", add(load("x"), load("y"))))!;
  const x = new Float32Array(new SharedArrayBuffer(16)).fill(2);
  const y = new Float32Array(new SharedArrayBuffer(24), 4, 4).fill(1);
  kernel({ x, y }, {});
  expect([...x, ...y]).toEqual([2, 2, 2, 2, 3, 3, 3, 3]);
  expect([...new Float32Array(y.buffer)]).toEqual([0, 3, 3, 3, 3, 0]);
});
