// Every optimizer against published implementations, and its graph form against the one in main memory.

import { beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import { Graph } from "../../graph/index.js";
import { readSafetensors } from "../../storage/index.js";
import "../../runtime/node.js";
import { compile } from "../../runtime/index.js";
import { Generator, randn } from "../../tensor/random.js";
import { type Tensor, tensor, zeros } from "../../tensor/tensor.js";
import { PACKED_ROW, PackedScalars } from "../packing.js";
import { AdamW } from "./adamw.js";
import { createOptimizer, OPTIMIZER_NAMES, type OptimizerName } from "./create-optimizer.js";
import { Lion } from "./lion.js";
import type { Optimizer } from "./optimizer.js";

/** Published implementations compute in float32, ours in float64 between loads and stores. */
const GOLDEN_TOLERANCE = 1e-6;
/** Between float32 and float64 arithmetic in the same formula, over a few steps. */
const SAME_FORMULA_TOLERANCE = 1e-6;
const CASES = { lion: ["lion", "lion_other_betas"], adamw: ["adamw", "adamw_other_betas"] } as const;

interface GoldenCase {
  options: { lr: number; betas: [number, number]; eps?: number; weight_decay: number };
  parameters: string[];
  states: string[];
}

const configured = (name: OptimizerName, { lr, betas, eps, weight_decay: weightDecay }: GoldenCase["options"]) =>
  createOptimizer(name, { lr, betas, weightDecay, ...(eps !== undefined && { eps }) });

const rowOf = ({ data, shape }: Tensor, row: number): Float32Array => {
  const size = data.length / shape[0]!;
  return (data as Float32Array).slice(row * size, (row + 1) * size);
};

describe("published implementations, over ten steps", () => {
  let tensors: ReadonlyMap<string, Tensor>;
  let golden: Record<string, GoldenCase>;
  beforeAll(async () => {
    const file = await readSafetensors("test/reference/optimizers.safetensors");
    tensors = file.tensors;
    golden = JSON.parse(file.metadata.cases!);
  });

  for (const name of OPTIMIZER_NAMES) {
    for (const label of CASES[name]) {
      it(`${label}: parameters and state after every step`, () => {
        const { options, parameters: names, states } = golden[label]!;
        const optimizer = configured(name, options);
        expect(optimizer.slotNames).toEqual(states);
        const given = (key: string): Tensor => tensors.get(key)!;
        const parameters = new Map(names.map((key) => [key, (given(`initial.${key}`).data as Float32Array).slice()]));
        const steps = given(`gradients.${names[0]}`).shape[0]!;
        expect(steps).toBe(10);
        for (let k = 0; k < steps; k++) {
          optimizer.step(parameters, new Map(names.map((key) => [key, rowOf(given(`gradients.${key}`), k)])));
          const state = optimizer.stateDict();
          for (const key of names) {
            const expected = rowOf(given(`${label}.${key}`), k);
            expect(relativeError(parameters.get(key)!, expected), `${key}, step ${k}`).toBeLessThan(GOLDEN_TOLERANCE);
            for (const slot of states) {
              const made = state.get(`${key}.${slot}`)!.data as Float32Array;
              const wanted = rowOf(given(`${label}.${key}.${slot}`), k);
              expect(relativeError(made, wanted), `${key}.${slot}, step ${k}`).toBeLessThan(GOLDEN_TOLERANCE);
            }
          }
        }
      });
    }
  }
});

describe("as graph nodes", () => {
  for (const name of OPTIMIZER_NAMES) {
    it(`${name} does what it does in main memory, zero gradients included`, async () => {
      const options = { lr: 1e-2, betas: [0.8, 0.95], weightDecay: 0.1 } as const;
      const [host, device] = [createOptimizer(name, options), createOptimizer(name, options)];
      const step = await compileStep(device);
      const initial = randn([PACKED_ROW], { generator: new Generator(1) });
      const parameter = initial.data.slice();
      let values: Record<string, Tensor> = { parameters: initial };
      for (const slot of device.slotNames) values[slot] = zeros([PACKED_ROW]);
      for (let k = 0; k < 6; k++) {
        const gradient = randn([PACKED_ROW], { generator: new Generator(10 + k) });
        gradient.data.fill(0, 0, 100);
        const learningRate = 1e-2 / (1 + k);
        host.step(new Map([["w", parameter]]), new Map([["w", gradient.data]]), { learningRate });
        values = await step(values, gradient, learningRate);
        device.countStep();
        expect(relativeError(values.parameters!.data as Float32Array, parameter)).toBeLessThan(SAME_FORMULA_TOLERANCE);
        const state = host.stateDict();
        for (const slot of device.slotNames) {
          const expected = state.get(`w.${slot}`)!.data as Float32Array;
          expect(relativeError(values[slot]!.data as Float32Array, expected), slot).toBeLessThan(
            SAME_FORMULA_TOLERANCE,
          );
        }
      }
    });
  }
});

async function compileStep(optimizer: Optimizer) {
  const graph = new Graph();
  const input = (name: string) => graph.input(name, "float32", [PACKED_ROW]);
  const scalars = new PackedScalars(optimizer.coefficientNames);
  const state = Object.fromEntries(optimizer.slotNames.map((slot) => [slot, input(slot)]));
  const before = { parameters: input("parameters"), state };
  const after = optimizer.addToGraph(before, input("gradient"), scalars.input(graph, "scalars"));
  graph.output("next.parameters", after.parameters);
  for (const [slot, value] of Object.entries(after.state)) graph.output(`next.${slot}`, value);
  const compiled = await compile(graph);
  return async (values: Record<string, Tensor>, gradient: Tensor, learningRate: number) => {
    const feeds = { ...values, gradient, scalars: scalars.pack(optimizer.coefficients({ learningRate })) };
    const result = await compiled.run(feeds);
    return Object.fromEntries(Object.entries(result).map(([name, value]) => [name.replace("next.", ""), value]));
  };
}

describe("Lion", () => {
  it("has the paper's defaults", () => {
    expect(new Lion()).toMatchObject({ lr: 1e-4, betas: [0.9, 0.99], weightDecay: 0 });
  });

  it("does two steps as worked out by hand", () => {
    const parameters = new Map([["w", Float32Array.of(1, -2, 3)]]);
    const optimizer = new Lion({ lr: 0.1, betas: [0.5, 0.75], weightDecay: 0.2 });
    optimizer.step(parameters, new Map([["w", Float32Array.of(4, -0.1, 0)]]));
    // decay by 1 − 0.1·0.2, then lr·sign(g); no step where there is no gradient
    for (const [i, expected] of [0.98 - 0.1, -1.96 + 0.1, 2.94].entries()) {
      expect(parameters.get("w")![i]).toBeCloseTo(expected, 6);
    }
    // The momentum is a quarter of the gradient, 1: a gradient of −0.5 is outweighed, one of −2 is not.
    const start = parameters.get("w")![0]!;
    const other = new Lion({ lr: 0.1, betas: [0.5, 0.75] });
    other.loadStateDict(optimizer.stateDict());
    optimizer.step(parameters, new Map([["w", Float32Array.of(-0.5, 0, 0)]]));
    expect(parameters.get("w")![0]).toBeCloseTo(start * 0.98 - 0.1, 6);
    const copy = new Map([["w", Float32Array.of(1, 1, 1)]]);
    other.step(copy, new Map([["w", Float32Array.of(-2, 0, 0)]]));
    expect(copy.get("w")![0]).toBeCloseTo(1.1, 6);
    expect(other.stateDict().get("w.exp_avg")!.data[0]).toBeCloseTo(0.75 - 0.5, 6);
  });

  it("refuses the state of AdamW, and hyperparameters out of their range", () => {
    const adamw = createOptimizer("adamw");
    adamw.step(new Map([["w", Float32Array.of(1)]]), new Map([["w", Float32Array.of(1)]]));
    expect(() => new Lion().loadStateDict(adamw.stateDict())).toThrow(
      /Lion.loadStateDict: unexpected tensor "w.exp_avg_sq"; a state holds step and NAME.exp_avg\./,
    );
    expect(() => new Lion({ lr: -1 })).toThrow(/Lion: lr/);
    expect(() => new Lion({ betas: [0.9, 1] })).toThrow(/Lion: betas/);
    expect(() => new Lion({ weightDecay: Number.NaN })).toThrow(/Lion: weightDecay/);
  });
});

describe("createOptimizer", () => {
  it("leaves out options at the optimizer's own defaults", () => {
    expect(createOptimizer("adamw", { lr: undefined })).toMatchObject({ name: "AdamW", lr: 1e-3, weightDecay: 0.01 });
    expect(createOptimizer("lion", { weightDecay: 0.3 })).toMatchObject({ name: "Lion", lr: 1e-4, weightDecay: 0.3 });
  });

  it("refuses an unknown name and says which there are", () => {
    expect(() => createOptimizer("sgd" as "adamw")).toThrow(/one of adamw, lion; got "sgd"/);
    expect(() => createOptimizer("toString" as "adamw")).toThrow(/one of adamw, lion/);
  });
});

it("refuses state of another size than the parameter's where steps are done elsewhere", () => {
  const optimizer = createOptimizer("lion");
  optimizer.loadStateDict(
    new Map<string, Tensor>([
      ["step", tensor([1], [], "int64")],
      ["w.exp_avg", tensor([1, 2])],
    ]),
  );
  expect(() => optimizer.stateOf(new Map([["w", 3]]))).toThrow(/Lion: "w" must have one size; got parameter 3, .* 2/);
});

it("an option that an optimizer does not have is refused by name", () => {
  expect(() => new AdamW({ learningRate: 1 } as never)).toThrow('AdamW: there is no option "learningRate"; write lr.');
  expect(() => new Lion({ eps: 1 } as never)).toThrow('Lion: there is no option "eps".');
});
