import { expect, it } from "vitest";
import { checkGradients, runGraph } from "../../../../test/support/check-gradients.js";
import { relativeError } from "../../../../test/support/relative-error.js";
import { ENERGIES, gatesByHand, networkOf, stateOf } from "../../../../test/support/router-network.js";
import { gradients } from "../../../autodiff/index.js";
import { Graph, mul, reduceSum, type Value } from "../../../graph/index.js";
import { compile } from "../../../runtime/index.js";
import { Generator, randn } from "../../../tensor/random.js";
import { type Tensor, tensor } from "../../../tensor/tensor.js";
import { AdamW } from "../../../training/optimizers/index.js";
import { FeRAConfig } from "../fera-config.js";
import { adapterGates } from "../soft-frequency-router.js";
import { createRouter } from "./index.js";

const config = new FeRAConfig({ numExperts: 4, numBands: 3, routerTau: 0.5, router: "relative-energies" });
const TIMES = [20, 730];
const timesteps = tensor(Float32Array.from(TIMES), [2]);
const small = randn([6, 9], { generator: new Generator(4) });
const expected = tensor(
  small.data.map((value) => 0.3 * value),
  [6, 9],
);

/** (log(e + 1e-6) − m(t)) / s(t) by hand, and log s². */
function standardized(energies: Tensor, times: readonly number[]): { relative: number[]; logVariance: number[] } {
  const result = { relative: [] as number[], logVariance: [] as number[] };
  times.forEach((t, row) => {
    const features = Array.from({ length: 9 }, (_, j) => Math.cos((Math.PI * j * t) / 1000));
    const at = (output: number) =>
      features.reduce((sum, feature, j) => sum + feature * expected.data[9 * output + j]!, 0);
    for (let band = 0; band < 3; band++) {
      const log = Math.log(Number(energies.data[3 * row + band]) + 1e-6);
      result.relative.push((log - at(band)) * Math.exp(-0.5 * at(3 + band)));
      result.logVariance.push(at(3 + band));
    }
  });
  return result;
}

it("the network on the energies' logarithms, standardized by what their timestep makes likely", async () => {
  const network = networkOf(config).set("expected.weight", expected);
  const features = tensor(Float32Array.from(standardized(ENERGIES, TIMES).relative), [2, 3]);
  const gates = await adapterGates({ config, state: stateOf(network) }, { energies: ENERGIES, timesteps });
  expect(relativeError(gates.data, gatesByHand(network, features, config.routerTau))).toBeLessThan(1e-5);
});

it("the gradients of the network and of the fit agree with finite differences", async () => {
  const router = createRouter(config);
  const network = Object.fromEntries(networkOf(config));
  const maps = ({ energies, timesteps, ...values }: Record<string, Value>) =>
    [{ energies: energies!, timesteps: timesteps! }, new Map(Object.entries(values))] as const;
  const fixed = { energies: ENERGIES, timesteps };
  await checkGradients({
    inputs: network,
    fixed: { ...fixed, "expected.weight": expected },
    build: (values) => router.gates(...maps(values)),
  });
  await checkGradients({
    inputs: { "expected.weight": expected },
    fixed: { ...fixed, ...network },
    build: (values) => router.ownLoss!.value(...maps(values)),
  });
});

it("the gates' gradient does not reach what is expected", async () => {
  const graph = new Graph();
  const feeds = {
    timesteps,
    energies: ENERGIES,
    ...Object.fromEntries(networkOf(config)),
    "expected.weight": expected,
  };
  const values = Object.fromEntries(
    Object.entries(feeds).map(([name, { shape }]) => [name, graph.input(name, "float32", shape)]),
  );
  const { energies, timesteps: times, ...parameters } = values;
  const gates = createRouter(config).gates(
    { energies: energies!, timesteps: times! },
    new Map(Object.entries(parameters)),
  );
  const squared = reduceSum(mul(gates, gates));
  const [fit, network] = gradients(squared, [values["expected.weight"]!, values["net.2.weight"]!]);
  graph.output("fit", fit!);
  graph.output("network", network!);
  const result = await runGraph(graph, feeds);
  expect(result.fit!.data.every((value) => value === 0)).toBe(true);
  expect(result.network!.data.some((value) => value !== 0)).toBe(true);
});

it("its own loss is ½ (f² + log s²), and its minimum is the energies' mean and spread at each timestep", async () => {
  const count = 64;
  // log e of the first band is −1 − t/1000 with a spread of 0.2; the others are fixed.
  const times = Array.from({ length: count }, (_, i) => (i * 1000) / count);
  const noise = randn([count], { generator: new Generator(8) }).data;
  const energies = tensor(
    times.flatMap((t, i) => [Math.exp(-1 - t / 1000 + 0.2 * noise[i]!), 0.5, 0.25]),
    [count, 3],
  );
  const graph = new Graph();
  const weight = graph.input("expected.weight", "float32", [6, 9]);
  const inputs = {
    energies: graph.input("energies", "float32", [count, 3]),
    timesteps: graph.input("timesteps", "float32", [count]),
  };
  const loss = createRouter(config).ownLoss!.value(inputs, new Map([["expected.weight", weight]]));
  graph.output("loss", loss);
  graph.output("gradient", gradients(loss, [weight])[0]!);
  const compiled = await compile(graph);
  const run = (value: Tensor<"float32">) =>
    compiled.run({ energies, timesteps: tensor(Float32Array.from(times), [count]), "expected.weight": value });
  const { relative, logVariance } = standardized(energies, times);
  const byHand = relative.reduce((sum, f, i) => sum + (f * f + logVariance[i]!) / 2, 0) / relative.length;
  expect(((await run(expected)).loss!.data as Float32Array)[0]! / (0.01 * byHand)).toBeCloseTo(1, 3);

  const fitted = tensor(new Float32Array(54), [6, 9]);
  const optimizer = new AdamW({ lr: 0.03, weightDecay: 0 });
  for (let step = 0; step < 250; step++) {
    const gradient = (await run(fitted)).gradient!.data as Float32Array;
    optimizer.step(new Map([["expected.weight", fitted.data]]), new Map([["expected.weight", gradient]]));
  }
  await compiled.release();
  for (const t of [250, 500, 750]) {
    const features = Array.from({ length: 9 }, (_, j) => Math.cos((Math.PI * j * t) / 1000));
    const at = (output: number) =>
      features.reduce((sum, feature, j) => sum + feature * fitted.data[9 * output + j]!, 0);
    expect(Math.abs(at(0) - (-1 - t / 1000))).toBeLessThan(0.15);
    expect(Math.abs(at(1) - Math.log(0.5))).toBeLessThan(0.1);
  }
});
