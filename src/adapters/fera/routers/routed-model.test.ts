// A denoiser with adapters of each router: predictions, training steps, files.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../../../test/support/relative-error.js";
import { UNet2DConditionModel } from "../../../models/index.js";
import "../../../runtime/node.js";
import { writeTorch } from "../../../storage/index.js";
import "../../../storage/node.js";
import { Generator, randn } from "../../../tensor/random.js";
import { type Tensor, tensor } from "../../../tensor/tensor.js";
import { readAdapter } from "../../adapter-format.js";
import { FeRAConfig, ROUTER_NAMES, type RouterName } from "../fera-config.js";
import { FeRAModel } from "../fera-model.js";

let unet: UNet2DConditionModel;
let folder: string;
beforeAll(async () => {
  unet = await UNet2DConditionModel.fromPretrained("test/reference/unet-sd15", { subfolder: "unet" });
  folder = await mkdtemp(join(tmpdir(), "fera-routers-"));
});
afterAll(async () => {
  await unet.release();
  await rm(folder, { recursive: true });
});

const generator = new Generator(8);
const inputs = {
  latents: randn([2, 4, 8, 8], { generator }),
  timesteps: tensor([40, 870], [2], "int64"),
  encoderHiddenStates: randn([2, 5, 24], { generator }),
};
const batch = { ...inputs, target: randn([2, 4, 8, 8], { generator }) };

/** With experts that act: fresh ones change nothing. */
function adapted(router: RouterName): FeRAModel {
  const config = new FeRAConfig({ rank: 2, alpha: 4, router, targetModules: ["attn2.to_q", "attn2.to_v"], sigma });
  const fera = new FeRAModel(unet, config, { seed: 4 });
  const own = new Generator(9);
  for (const [name, { data, shape }] of fera.parameters) {
    if (name.endsWith(".up")) data.set(randn(shape, { generator: own }).data.map((value) => value * 0.2));
  }
  return fera;
}
// Spreads the energies of small latents further apart.
const sigma = { rule: "latent", divisor: 8 } as const;

describe.each(ROUTER_NAMES)("router %s", (router) => {
  it("a training step's gradients agree with finite differences, the router's and the experts'", async () => {
    const fera = adapted(router);
    const step = await fera.compileTrainStep({ batchSize: 2, latentHeight: 8, latentWidth: 8, tokens: 5 });
    const { losses, gradients } = await step.compute(batch);
    expect(losses.fecl).toBeGreaterThan(0);
    // What is expected of the energies is fitted by a loss of its own, which the gates' gradient does not reach.
    const isRouters = (name: string) => name.startsWith("router.net.");
    const groups = [isRouters, (name: string) => !name.startsWith("router.")].map((of) =>
      [...gradients].filter(([name]) => of(name)),
    );
    const isTrained = router !== "gates-are-energies" && router !== "uniform";
    expect(groups.map((group) => group.length > 0)).toEqual([isTrained, true]);
    for (const group of groups.filter(({ length }) => length > 0)) {
      // Along the gradient itself the derivative is its norm.
      const norm = Math.hypot(...group.flatMap(([, gradient]) => [...gradient]));
      const lossAt = async (distance: number): Promise<number> => {
        const before = group.map(([name]) => fera.parameters.get(name)!.data.slice());
        for (const [name, gradient] of group) {
          const { data } = fera.parameters.get(name)!;
          for (let i = 0; i < data.length; i++) data[i] = data[i]! + (distance * gradient[i]!) / norm;
        }
        const { loss } = await step.evaluate(batch);
        for (const [i, [name]] of group.entries()) fera.parameters.get(name)!.data.set(before[i]!);
        return loss;
      };
      // Logarithms vary more than energies do: hidden units reach relu's kink sooner.
      const h = isRouters(group[0]![0]) && router !== "relative-energies" ? 0.1 : 0.02;
      const derivative = ((await lossAt(h)) - (await lossAt(-h))) / (2 * h);
      expect(Math.abs(derivative / norm - 1)).toBeLessThan(0.01);
    }
    await step.release();
  });

  it.each(["adapter.safetensors", "folder"])("comes back from %s, and predicts the same", async (name) => {
    const fera = adapted(router);
    const path = join(folder, `${router}-${name}`);
    await fera.saveAdapters(path);
    const again = new FeRAModel(unet);
    await again.loadAdapters(path);
    expect(again.config).toEqual(fera.config);
    expect(again.stateDict()).toEqual(fera.stateDict());
    expect(relativeError((await again.predict(inputs)).data, (await fera.predict(inputs)).data)).toBeLessThan(1e-6);
    await Promise.all([fera.release(), again.release()]);
  });
});

it("predictions differ between routers with the same experts", async () => {
  const outputs: Tensor<"float32">[] = [];
  for (const router of ROUTER_NAMES) {
    const fera = adapted(router);
    const reference = adapted("uniform");
    for (const [name, { data }] of reference.parameters) {
      if (!name.startsWith("router.")) fera.parameters.get(name)!.data.set(data);
    }
    // Fresh, this one's gates are the energies.
    if (router === "energies-by-block") fera.parameters.get("router.block.bias")!.data.fill(0.9, 1, 8);
    if (router === "from-energies") fera.parameters.get("router.net.2.bias")!.data.set([0.5, 0, -0.5]);
    outputs.push(await fera.predict(inputs));
    await fera.release();
  }
  outputs.forEach((output, i) => {
    for (const other of outputs.slice(i + 1)) expect(relativeError(output.data, other.data)).toBeGreaterThan(1e-4);
  });
});

describe("a .pt file, which has no configuration", () => {
  it.each(ROUTER_NAMES.filter((name) => name !== "energies"))("is not written for router %s", async (router) => {
    const path = join(folder, `${router}.pt`);
    await expect(adapted(router).saveAdapters(path)).rejects.toThrow(
      `a .pt file cannot say that the router is "${router}". Write a .safetensors file or a folder.`,
    );
    await expect(readAdapter(path)).rejects.toThrow(/no such file/);
  });

  it("is refused when it holds experts and no router", async () => {
    const path = join(folder, "bare.pt");
    await writeTorch(path, adapted("uniform").stateDict());
    await expect(readAdapter(path)).rejects.toThrow(/bare\.pt: holds experts without a router.*gates are not known/);
  });
});

it.each(["timestep", "relative-energies"] as const)("route() of router %s asks for timesteps", async (router) => {
  const fera = adapted(router);
  await expect(fera.route(inputs.latents)).rejects.toThrow(`router "${router}": needs the timesteps`);
  const { gates } = await fera.route(inputs.latents, inputs.timesteps);
  expect(gates.shape).toEqual([2, 3]);
  expect(gates.data.slice(0, 3)).not.toEqual(gates.data.slice(3));
  await fera.release();
});

it("a step whose smaller gates are closed agrees with finite differences, and reports what stays", async () => {
  const fera = adapted("energies");
  const sparse = new FeRAModel(unet, fera.config.with({ topExperts: 2, feclWeight: 0 }));
  sparse.loadStateDict(fera.stateDict());
  const { data } = (await sparse.route(inputs.latents)).gates;
  for (const row of [data.slice(0, 3), data.slice(3)]) {
    expect([...row].filter((gate) => gate === 0)).toHaveLength(1);
    expect(row.reduce((sum, gate) => sum + gate)).toBeCloseTo(1, 5);
  }
  const step = await sparse.compileTrainStep({ batchSize: 2, latentHeight: 8, latentWidth: 8, tokens: 5 });
  const name = "router.net.2.bias";
  const gradient = (await step.compute(batch)).gradients.get(name)!;
  const values = sparse.parameters.get(name)!.data;
  const norm = Math.hypot(...gradient);
  const lossAt = async (distance: number) => {
    const before = values.slice();
    for (let i = 0; i < values.length; i++) values[i] = values[i]! + (distance * gradient[i]!) / norm;
    const { loss } = await step.evaluate(batch);
    values.set(before);
    return loss;
  };
  expect(((await lossAt(0.02)) - (await lossAt(-0.02))) / 0.04 / norm).toBeCloseTo(1, 1);
  await step.release();
});

it("the balance loss is E Σ p² − 1 of the mean gates, and leaves files as they are without it", async () => {
  const fera = adapted("energies");
  const balanced = new FeRAModel(unet, fera.config.with({ balanceWeight: 10, feclWeight: 0 }));
  balanced.loadStateDict(fera.stateDict());
  const step = await balanced.compileTrainStep({ batchSize: 2, latentHeight: 8, latentWidth: 8, tokens: 5 });
  const { data } = (await balanced.route(inputs.latents)).gates;
  const sum = [0, 1, 2].reduce((total, k) => total + ((data[k]! + data[3 + k]!) / 2) ** 2, 0);
  const { losses } = await step.compute(batch);
  expect((losses as { balance?: number }).balance! / (10 * (3 * sum - 1))).toBeCloseTo(1, 1);
  expect(((await step.evaluate(batch)) as { balance?: number }).balance! / (10 * (3 * sum - 1))).toBeCloseTo(1, 3);
  await step.release();
  expect(balanced.config.toJSON()).toMatchObject({ balance_weight: 10 });
  expect(fera.config.toJSON()).not.toHaveProperty("balance_weight");
  expect(() => new FeRAConfig({ balanceWeight: -1 })).toThrow(/balanceWeight/);
});
