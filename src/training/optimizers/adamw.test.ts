import { describe, expect, it } from "vitest";
import { Generator, randn } from "../../tensor/random.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import { AdamW } from "./adamw.js";

const normal = (size: number, seed: number) => randn([size], { generator: new Generator(seed) }).data;

/** The textbook update in float64: bias-corrected moments, written apart from one another. */
function reference(
  start: Float32Array,
  gradients: Float32Array[],
  rates: number[],
  { betas: [beta1, beta2], eps, weightDecay }: { betas: [number, number]; eps: number; weightDecay: number },
): Float64Array {
  const theta = Float64Array.from(start);
  const m = new Float64Array(theta.length);
  const v = new Float64Array(theta.length);
  gradients.forEach((gradient, k) => {
    for (let i = 0; i < theta.length; i++) {
      theta[i]! -= rates[k]! * weightDecay * theta[i]!;
      m[i] = beta1 * m[i]! + (1 - beta1) * gradient[i]!;
      v[i] = beta2 * v[i]! + (1 - beta2) * gradient[i]! ** 2;
      const mHat = m[i]! / (1 - beta1 ** (k + 1));
      const vHat = v[i]! / (1 - beta2 ** (k + 1));
      theta[i]! -= (rates[k]! * mHat) / (Math.sqrt(vHat) + eps);
    }
  });
  return theta;
}

describe("AdamW", () => {
  it("does the first step as worked out by hand", () => {
    const parameters = new Map([["w", Float32Array.of(1, -2, 3)]]);
    const gradients = new Map([["w", Float32Array.of(0.5, -0.1, 0)]]);
    new AdamW({ lr: 0.1, weightDecay: 0.2 }).step(parameters, gradients);
    // decay by 1 − 0.1·0.2, then lr·sign(g), because after one step m̂/sqrt(v̂) = g/|g|
    expect(parameters.get("w")![0]).toBeCloseTo(0.98 - 0.1, 6);
    expect(parameters.get("w")![1]).toBeCloseTo(-1.96 + 0.1, 6);
    expect(parameters.get("w")![2]).toBeCloseTo(2.94, 6);
  });

  it("follows a float64 reference over many steps with a changing learning rate", () => {
    const options = { betas: [0.8, 0.95] as [number, number], eps: 1e-6, weightDecay: 0.05 };
    const start = normal(500, 1);
    const steps = Array.from({ length: 60 }, (_, k) => normal(500, 100 + k));
    const rates = steps.map((_, k) => 0.02 / (1 + k));
    const parameter = start.slice();
    const optimizer = new AdamW({ lr: 9, ...options });
    steps.forEach((gradient, k) => {
      optimizer.step(new Map([["w", parameter]]), new Map([["w", gradient]]), { learningRate: rates[k]! });
    });
    const wanted = reference(start, steps, rates, options);
    parameter.forEach((value, i) => {
      expect(Math.abs(value - wanted[i]!)).toBeLessThan(2e-6);
    });
    expect(optimizer.stepCount).toBe(60);
  });

  it("has PyTorch's defaults, and keeps them when the learning rate of a step is another", () => {
    const optimizer = new AdamW();
    expect(optimizer).toMatchObject({ lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01 });
  });

  it("leaves parameters without a gradient, and the gradients, as they are", () => {
    const parameters = new Map([
      ["a", Float32Array.of(1)],
      ["b", Float32Array.of(1)],
    ]);
    const gradients = new Map([["a", Float32Array.of(2)]]);
    const optimizer = new AdamW({ lr: 0.1 });
    optimizer.step(parameters, gradients);
    expect(parameters.get("b")![0]).toBe(1);
    expect(gradients.get("a")![0]).toBe(2);
    expect([...optimizer.stateDict().keys()]).toEqual(["step", "a.exp_avg", "a.exp_avg_sq"]);
  });

  it("updates parameters in shared memory", () => {
    const shared = new Float32Array(new SharedArrayBuffer(8));
    shared.set([1, 2]);
    new AdamW({ lr: 0.1, weightDecay: 0 }).step(
      new Map([["w", shared]]),
      new Map([["w", new Float32Array(new SharedArrayBuffer(8)).fill(1)]]),
    );
    expect(shared[0]).toBeCloseTo(0.9, 6);
    expect(shared[1]).toBeCloseTo(1.9, 6);
  });

  it("goes on bit for bit from a saved state", () => {
    const gradients = Array.from({ length: 6 }, (_, k) => new Map([["w.x", normal(50, k)]]));
    const run = (resumeAt: number) => {
      const parameters = new Map([["w.x", normal(50, 99).slice()]]);
      let optimizer = new AdamW({ lr: 0.01 });
      gradients.forEach((gradient, k) => {
        if (k === resumeAt) {
          const state = optimizer.stateDict();
          optimizer = new AdamW({ lr: 0.01 });
          optimizer.loadStateDict(state);
        }
        optimizer.step(parameters, gradient);
      });
      return parameters.get("w.x")!;
    };
    expect(run(3)).toEqual(run(-1));
  });

  it("gives out copies of its state", () => {
    const optimizer = new AdamW();
    optimizer.step(new Map([["w", Float32Array.of(1)]]), new Map([["w", Float32Array.of(1)]]));
    optimizer.stateDict().get("w.exp_avg")!.data[0] = 7;
    expect(optimizer.stateDict().get("w.exp_avg")!.data[0]).toBeCloseTo(0.1, 6);
  });

  it("refuses a broken state and keeps its own", () => {
    const optimizer = new AdamW();
    optimizer.step(new Map([["w", Float32Array.of(1)]]), new Map([["w", Float32Array.of(1)]]));
    const good = optimizer.stateDict();
    const broken = (key: string, value?: Tensor) => {
      const state = new Map(good);
      if (value) state.set(key, value);
      else state.delete(key);
      return () => optimizer.loadStateDict(state);
    };
    expect(broken("step")).toThrow(/"step".*nothing/);
    expect(broken("step", tensor([-1], [], "int64"))).toThrow(/"step".*-1/);
    expect(broken("step", tensor([1.5], []))).toThrow(/1\.5/);
    expect(broken("w.exp_avg")).toThrow(/"w.exp_avg".*nothing/);
    expect(broken("w.exp_avg_sq")).toThrow(/"w.exp_avg_sq".*nothing/);
    expect(broken("w.exp_avg", tensor([1], [1], "int32"))).toThrow(/float32 tensor; got int32/);
    expect(broken("w.exp_avg", tensor([1, 2]))).toThrow(/same size; got 2 and 1/);
    expect(broken("w.exp_avg", tensor([Number.NaN]))).toThrow(/not finite/);
    expect(broken("w.exp_avg_sq", tensor([-1]))).toThrow(/negative/);
    expect(broken("momentum", tensor([1]))).toThrow(/unexpected tensor "momentum"/);
    expect(optimizer.stateDict()).toEqual(good);
  });

  it("refuses gradients that do not fit, before it changes anything", () => {
    const parameters = new Map([
      ["a", Float32Array.of(1)],
      ["b", Float32Array.of(1, 2)],
    ]);
    const optimizer = new AdamW();
    const step = (gradients: [string, Float32Array][]) => () => optimizer.step(parameters, new Map(gradients));
    expect(
      step([
        ["a", Float32Array.of(1)],
        ["c", Float32Array.of(1)],
      ]),
    ).toThrow(/"c" has no parameter/);
    expect(
      step([
        ["a", Float32Array.of(1)],
        ["b", Float32Array.of(1)],
      ]),
    ).toThrow(/parameter 2, gradient 1/);
    expect(parameters.get("a")![0]).toBe(1);
    expect(optimizer.stepCount).toBe(0);
    optimizer.loadStateDict(
      new Map([
        ["step", tensor([1], [], "int64")],
        ["a.exp_avg", tensor([1, 2])],
        ["a.exp_avg_sq", tensor([1, 2])],
      ]),
    );
    expect(step([["a", Float32Array.of(1)]])).toThrow(/optimizer state 2/);
  });

  it("refuses hyperparameters out of their range", () => {
    expect(() => new AdamW({ lr: -1 })).toThrow(/lr/);
    expect(() => new AdamW({ lr: Number.NaN })).toThrow(/lr/);
    expect(() => new AdamW({ betas: [0.9, 1] })).toThrow(/betas/);
    expect(() => new AdamW({ betas: [0.9] as unknown as [number, number] })).toThrow(/betas/);
    expect(() => new AdamW({ eps: -1e-8 })).toThrow(/eps/);
    expect(() => new AdamW({ weightDecay: Number.POSITIVE_INFINITY })).toThrow(/weightDecay/);
    expect(() => new AdamW().step(new Map(), new Map(), { learningRate: -1 })).toThrow(/learningRate/);
  });
});
