import { describe, expect, it } from "vitest";
import * as ops from "../graph/index.js";
import { Graph } from "../graph/index.js";
import { tensor } from "../tensor/tensor.js";
import { compile } from "./compile.js";
import "./node.js";

/** total ← total + x, and the square of the new total. */
function summing(): Graph {
  const graph = new Graph();
  const sum = ops.add(graph.input("total", "float32", [2]), graph.input("x", "float32", [2]));
  graph.output("sum", sum);
  graph.output("square", ops.mul(sum, sum));
  graph.output("first", ops.slice(sum, 0, 0, 1));
  return graph;
}

const ioBinding = { state: { total: "sum" }, outputs: ["square"] };
const numbers = (value: { data: ArrayLike<number | bigint> } | undefined): number[] => Array.from(value!.data, Number);

describe("a graph with an I/O binding", () => {
  it("takes them from one run to the next only when told to", async () => {
    const compiled = await compile(summing(), { ioBinding });
    await compiled.write({ total: tensor([1, 2]) });
    const x = tensor([10, 20]);
    const results = await compiled.run({ x });
    expect(Object.keys(results)).toEqual(["first"]);
    expect(numbers(compiled.readSync(["total"]).total)).toEqual([1, 2]);
    expect(numbers((await compiled.run({ x })).first)).toEqual([11]);
    await compiled.advance();
    expect(numbers((await compiled.run({ x })).first)).toEqual([21]);
    const { total, square } = compiled.readSync(["total", "square"]);
    expect(numbers(total)).toEqual([11, 22]);
    expect(numbers(square)).toEqual([441, 42 ** 2]);
    await compiled.release();
  });

  it("names what is wrong with its use", async () => {
    const compiled = await compile(summing(), { ioBinding });
    const x = tensor([1, 1]);
    await expect(compiled.run({ x, total: x })).rejects.toThrow(/run: unknown input "total"; inputs are x/);
    await expect(compiled.write({ x })).rejects.toThrow(/write: input "total" is missing/);
    await expect(compiled.advance()).rejects.toThrow(/no run has made "sum" yet/);
    expect(() => compiled.readSync(["total"])).toThrow(/"total" has no value yet/);
    expect(() => compiled.readSync(["first"])).toThrow(/I\/O binding has no value "first"/);
    await compiled.release();
    expect(() => compiled.readSync(["total"])).toThrow(/was released/);
    const plain = await compile(summing());
    await expect(plain.advance()).rejects.toThrow(/compiled without an I\/O binding/);
    await plain.release();
  });
});
