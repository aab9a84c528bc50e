// Every optimizer against published implementations, and its graph form against the one in main memory.

import { beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import { Graph } from "../../graph/index.js";
import { readSafetensors } from "../../storage/index.js";
import "../../runtime/node.js";
import { compile } from "../../runtime/index.js";
import { Generator, randn } from "../../tensor/random.js";
import { Tensor, tensor } from "../../tensor/tensor.js";
import { PACKED_ROW, PackedScalars } from "../packing.js";
import { Adafactor } from "./adafactor.js";
import { AdamW } from "./adamw.js";
import { AdamW8bit } from "./adamw-8bit.js";
import { createOptimizer, OPTIMIZER_NAMES, type OptimizerName } from "./create-optimizer.js";
import type { ElementwiseOptimizer } from "./elementwise-optimizer.js";
import { Lion } from "./lion.js";
import { Muon } from "./muon.js";
import type { Optimizer } from "./optimizer.js";
import { Prodigy } from "./prodigy.js";
import { ScheduleFreeAdamW } from "./schedule-free.js";

/** Published implementations compute in float32, ours in float64 between loads and stores. */
const GOLDEN_TOLERANCE = 1e-6;
/** Between float32 and float64 arithmetic in the same formula, over a few steps. */
const SAME_FORMULA_TOLERANCE = 1e-6;
/** What the cases of one implementation leave open, and how near its numbers are. */
const CASES: Readonly<Record<string, { name: OptimizerName; tolerance?: number; states?: number }>> = {
  lion: { name: "lion" },
  lion_other_betas: { name: "lion" },
  adamw: { name: "adamw" },
  adamw_other_betas: { name: "adamw" },
  adafactor: { name: "adafactor" },
  adafactor_fixed: { name: "adafactor" },
  adafactor_momentum: { name: "adafactor" },
  // Its sums over float32 differences of nearly equal numbers are only as good as these.
  prodigy: { name: "prodigy", tolerance: 3e-5, states: 3e-5 },
  prodigy_safeguard: { name: "prodigy", tolerance: 3e-5, states: 3e-5 },
  schedulefree: { name: "schedule-free" },
  schedulefree_warmup: { name: "schedule-free" },
  adamw_8bit: { name: "adamw-8bit" },
  // torch orthogonalizes in bfloat16; muon_float32 is the same without.
  muon: { name: "muon", tolerance: 0.05 },
  muon_float32: { name: "muon" },
  muon_float32_match_rms: { name: "muon" },
};

interface GoldenCase {
  options: Record<string, unknown>;
  parameters: string[];
  states: string[];
  numbers: string[];
}

/** Options of theirs that have another name here, or none. */
const RENAMED: Readonly<Record<string, string>> = { adjust_lr_fn: "adjustLr", min_8bit_size: "min8bitSize" };
const LEFT_OUT = ["amsgrad", "decouple", "decoupled_weight_decay"];

function configured(name: OptimizerName, given: GoldenCase["options"]): Optimizer {
  const options = Object.entries(given)
    .filter(([key, value]) => value !== null && !LEFT_OUT.includes(key))
    .map(([key, value]) => [RENAMED[key] ?? key.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()), value]);
  return createOptimizer(name, Object.fromEntries(options));
}

/** Small parameters of AdamW8bit have plain moments, which bitsandbytes calls as it calls codes. */
const PLAIN: Readonly<Record<string, string>> = { state1: "exp_avg", state2: "exp_avg_sq" };

/** A slot's values; codes one by one. */
function valuesOf(state: ReadonlyMap<string, Tensor>, name: string, slot: string, size: number): Float32Array {
  const { data, dtype } = state.get(`${name}.${slot}`) ?? state.get(`${name}.${PLAIN[slot]}`)!;
  if (dtype !== "int32") return data as Float32Array;
  const { buffer, byteOffset } = data as Int32Array;
  return Float32Array.from(new Uint8Array(buffer, byteOffset, size));
}

const rowOf = ({ data, shape }: Tensor, row: number): Float32Array => {
  const size = data.length / shape[0]!;
  return (data as Float32Array).slice(row * size, (row + 1) * size);
};

describe("published implementations, over twenty steps", () => {
  let tensors: ReadonlyMap<string, Tensor>;
  let golden: Record<string, GoldenCase>;
  beforeAll(async () => {
    const file = await readSafetensors("test/reference/optimizers.safetensors");
    tensors = file.tensors;
    golden = JSON.parse(file.metadata.cases!);
  });

  for (const [
    label,
    { name, tolerance = GOLDEN_TOLERANCE, states: stateTolerance = GOLDEN_TOLERANCE },
  ] of Object.entries(CASES)) {
    it(`${label}: parameters and state after every step`, () => {
      const { options, parameters: names, states, numbers } = golden[label]!;
      const optimizer = configured(name, options);
      const given = (key: string): Tensor => tensors.get(key)!;
      const shapes = new Map(names.map((key) => [key, given(`initial.${key}`).shape]));
      const parameters = new Map(names.map((key) => [key, (given(`initial.${key}`).data as Float32Array).slice()]));
      const steps = given(`gradients.${names[0]}`).shape[0]!;
      expect(steps).toBe(20);
      const compared = new Set<string>();
      for (let k = 0; k < steps; k++) {
        const gradients = new Map(names.map((key) => [key, rowOf(given(`gradients.${key}`), k)]));
        optimizer.step(parameters, gradients, { shapes });
        const state = optimizer.stateDict();
        for (const key of names) {
          const expected = rowOf(given(`${label}.${key}`), k);
          expect(relativeError(parameters.get(key)!, expected), `${key}, step ${k}`).toBeLessThan(tolerance);
          for (const slot of states.filter((each) => tensors.has(`${label}.${key}.${each}`))) {
            const wanted = rowOf(given(`${label}.${key}.${slot}`), k);
            const made = valuesOf(state, key, slot, wanted.length);
            expect(relativeError(made, wanted), `${key}.${slot}, step ${k}`).toBeLessThan(stateTolerance);
            compared.add(slot);
          }
        }
        for (const number of numbers) {
          const wanted = (given(`${label}.${number}`).data as Float32Array)[k]!;
          expect(Math.abs(Number(state.get(number)!.data[0]) / wanted - 1), number).toBeLessThan(tolerance);
        }
      }
      expect([...compared].sort()).toEqual([...states].sort());
      const trained = new Map(names.map((key) => [key, new Tensor("float32", shapes.get(key)!, parameters.get(key)!)]));
      for (const key of names.filter((each) => tensors.has(`${label}.${each}.averaged`))) {
        const wanted = given(`${label}.${key}.averaged`).data as Float32Array;
        expect(relativeError(optimizer.delivered(trained).get(key)!.data, wanted), key).toBeLessThan(tolerance);
      }
    });
  }

  it("there is one for every optimizer", () => {
    expect(new Set(Object.values(CASES).map(({ name }) => name))).toEqual(new Set(OPTIMIZER_NAMES));
  });
});

describe("as graph nodes", () => {
  for (const name of ["adamw", "lion", "schedule-free"] as const) {
    it(`${name} does what it does in main memory, zero gradients included`, async () => {
      const options = { lr: 1e-2, betas: [0.8, 0.95], weightDecay: 0.1 } as const;
      const [host, device] = [createOptimizer(name, options), createOptimizer(name, options)];
      const step = await compileStep(device);
      const initial = randn([PACKED_ROW], { generator: new Generator(1) });
      const parameter = initial.data.slice();
      let values: Record<string, Tensor> = { parameters: initial };
      const states = device.stateOf(new Map([["w", initial]])).get("w")!;
      for (const [slot, start] of Object.entries(states)) values[slot] = tensor(start as Float32Array);
      for (let k = 0; k < 6; k++) {
        const gradient = randn([PACKED_ROW], { generator: new Generator(10 + k) });
        gradient.data.fill(0, 0, 100);
        const learningRate = 1e-2 / (1 + k);
        host.step(new Map([["w", parameter]]), new Map([["w", gradient.data]]), { learningRate });
        values = await step(values, gradient, learningRate);
        device.countStep({ learningRate });
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

async function compileStep(optimizer: ElementwiseOptimizer) {
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
    expect(() => createOptimizer("sgd" as "adamw")).toThrow(/one of adamw, .*, muon; got "sgd"/);
    expect(() => createOptimizer("toString" as "adamw")).toThrow(/one of adamw, /);
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
  expect(() => optimizer.stateOf(new Map([["w", tensor([1, 2, 3])]]))).toThrow(
    /Lion: "w" must have one size; got parameter 3, .* 2/,
  );
});

it("an option that an optimizer does not have is refused by name", () => {
  expect(() => new AdamW({ learningRate: 1 } as never)).toThrow('AdamW: there is no option "learningRate"; write lr.');
  expect(() => new Lion({ eps: 1 } as never)).toThrow('Lion: there is no option "eps".');
});

describe("every optimizer", () => {
  const shapes = new Map([
    ["block.a", [40, 9]],
    ["block.b", [7]],
    ["router.c", [3, 2, 2, 2]],
  ]);
  const drawn = (seed: number) => {
    const generator = new Generator(seed);
    return new Map([...shapes].map(([name, shape]) => [name, randn(shape, { generator }).data.slice()]));
  };
  const OPTIONS: Partial<Record<OptimizerName, object>> = {
    "adamw-8bit": { min8bitSize: 64 },
    adafactor: { lr: 1e-2, beta1: 0.5 },
    prodigy: { d0: 1e-3 },
  };
  const make = (name: OptimizerName): Optimizer => createOptimizer(name, OPTIONS[name] ?? { lr: 1e-2 });

  for (const name of OPTIMIZER_NAMES) {
    it(`${name} goes on to the bit from a saved state`, () => {
      const run = (resumeAt: number) => {
        const parameters = drawn(1);
        let optimizer = make(name);
        for (let k = 0; k < 8; k++) {
          if (k === resumeAt) {
            const state = optimizer.stateDict();
            optimizer = make(name);
            optimizer.loadStateDict(state);
          }
          optimizer.step(parameters, drawn(10 + k), { shapes, learningRate: optimizer.lr / (1 + k) });
        }
        return { parameters, state: optimizer.stateDict() };
      };
      expect(run(4)).toEqual(run(-1));
    });

    it(`${name} leaves alone what has a factor of 0, and moves the rest as if it were not there`, () => {
      const [frozen, alone] = [drawn(1), drawn(1)];
      const without = (values: Map<string, Float32Array>) => {
        values.delete("router.c");
        return values;
      };
      const [a, b] = [make(name), make(name)];
      for (let k = 0; k < 3; k++) {
        a.step(frozen, drawn(20 + k), { shapes, rateOf: (each) => (each.startsWith("router") ? 0 : 1) });
        b.step(alone, without(drawn(20 + k)), { shapes });
      }
      expect(frozen).toEqual(alone);
      expect(frozen.get("router.c")).toEqual(drawn(1).get("router.c"));
      expect(a.stateDict()).toEqual(b.stateDict());
    });
  }

  for (const name of OPTIMIZER_NAMES.filter((each) => each !== "prodigy")) {
    it(`${name} takes a factor as another learning rate`, () => {
      const [factored, other] = [drawn(1), drawn(1)];
      const [a, b] = [make(name), make(name)];
      for (let k = 0; k < 3; k++) {
        a.step(factored, drawn(20 + k), { shapes, rateOf: () => 0.5 });
        b.step(other, drawn(20 + k), { shapes, learningRate: 0.5 * b.lr });
      }
      for (const [key, values] of factored) expect(relativeError(values, other.get(key)!)).toBeLessThan(1e-6);
    });
  }

  it("Prodigy refuses factors between, which its one step size has no room for", () => {
    expect(() => make("prodigy").step(drawn(1), drawn(2), { shapes, rateOf: () => 0.5 })).toThrow(
      /Prodigy: .* must be 0 or 1; got 0.5 for "block.a"/,
    );
  });

  it("that needs shapes says so, and none takes a factor below 0", () => {
    for (const name of ["adafactor", "muon"] as const) {
      expect(() => make(name).step(drawn(1), drawn(2))).toThrow(/needs the shape of "block.a"/);
    }
    expect(() => make("adamw").step(drawn(1), drawn(2), { rateOf: () => -1 })).toThrow(/factor of "block.a" must be/);
  });
});

it("AdamW8bit keeps a quarter of AdamW's state", () => {
  const bytes = (name: "adamw" | "adamw-8bit") => {
    const optimizer = createOptimizer(name);
    const values = () => new Map([["w", new Float32Array(1 << 16)]]);
    optimizer.step(values(), values());
    return [...optimizer.stateDict().values()].reduce((sum, { data }) => sum + data.byteLength, 0);
  };
  expect(bytes("adamw-8bit")).toBeLessThan(0.26 * bytes("adamw"));
});

it("every optimizer refuses options out of their range, by name", () => {
  expect(() => new Adafactor({ relativeStep: false })).toThrow(/Adafactor: without relativeStep it needs .* give lr/);
  expect(() => new Adafactor({ lr: 1, warmupInit: true })).toThrow(/warmupInit needs relativeStep/);
  expect(() => new Adafactor({ decayRate: 0.8 })).toThrow(/decayRate must be below 0; got 0.8/);
  expect(() => new AdamW8bit({ min8bitSize: -1 })).toThrow(/AdamW8bit: min8bitSize/);
  expect(() => new Muon({ nsSteps: 100 })).toThrow(/nsSteps must be below 100/);
  expect(() => new Muon({ adjustLr: "none" as never })).toThrow(/adjustLr must be one of original, .*; got "none"/);
  expect(() => new Muon({ adamw: { beta: 1 } as never })).toThrow(/Muon: adamw: there is no option "beta"/);
  expect(() => new Prodigy({ d0: 0 })).toThrow(/d0 must be a finite number above 0; got 0/);
  expect(() => new Prodigy({ growthRate: 0.5 })).toThrow(/growthRate must be 1 or more; got 0.5/);
  expect(() => new ScheduleFreeAdamW({ betas: [0, 0.9] })).toThrow(/the first of betas must be above 0/);
});
