import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { UNet2DConditionModel } from "../../models/index.js";
import "../../storage/node.js";
import "../../runtime/node.js";
import type { ConditioningInputs } from "../../diffusion/index.js";
import { DDPMScheduler } from "../../schedulers/index.js";
import { Generator, randn } from "../../tensor/random.js";
import { tensor } from "../../tensor/tensor.js";
import { type LoadedAdapter, readFeRAAdapter } from "../adapter-format.js";
import {
  evenTimesteps,
  FeRAModel,
  freezeGates,
  freezingError,
  gatesOverTimesteps,
  meanGates,
  type NoisyLatents,
} from "../index.js";
import type { FeRAConfig } from "./fera-config.js";

let fera: FeRAModel;
let adapter: LoadedAdapter<FeRAConfig>;
const generator = new Generator(5);
/** Smooth, so that noise changes the shares of the bands. */
const smooth = Float32Array.from({ length: 2 * 4 * 64 }, (_, i) => 2 * Math.cos((i % 8) / 3 + Math.floor(i / 64)));
const noisy = {
  latents: tensor(smooth, [2, 4, 8, 8]),
  encoderHiddenStates: randn([2, 5, 24], { generator }),
  scheduler: new DDPMScheduler({ beta_schedule: "scaled_linear", beta_start: 0.00085, beta_end: 0.012 }),
  timesteps: [100, 500, 900],
  seed: 3,
} satisfies NoisyLatents & ConditioningInputs;

beforeAll(async () => {
  fera = new FeRAModel(await UNet2DConditionModel.fromPretrained("test/reference/unet-sd15/unet"));
  adapter = await readFeRAAdapter("test/reference/unet-sd15/adapters_trained.safetensors");
  // The blur of 8×8 latents hardly differs from none with the reference's rule; the gates must move here.
  adapter.config = adapter.config.with({ sigma: { rule: "latent", divisor: 8 }, bands: "complete" });
});
afterAll(async () => {
  await fera.release();
  await fera.model.release();
});

describe("gates over timesteps", () => {
  it("are the router's, of latents noised as the scheduler does, averaged over images", async () => {
    fera.useAdapter(adapter);
    const trajectory = await gatesOverTimesteps(fera, noisy);
    expect(trajectory.map(({ timestep }) => timestep)).toEqual(noisy.timesteps);
    const drawn = new Generator(noisy.seed);
    for (const { timestep, gates } of trajectory) {
      const noise = randn(noisy.latents.shape, { generator: drawn });
      const latents = noisy.scheduler.addNoise(noisy.latents, noise, tensor([timestep], [1], "int64"));
      const { data } = (await fera.route(latents)).weights;
      gates.forEach((gate, k) => {
        expect(gate).toBeCloseTo((data[k]! + data[gates.length + k]!) / 2, 5);
      });
    }
    const mean = meanGates(trajectory);
    expect(mean.reduce((sum, gate) => sum + gate, 0)).toBeCloseTo(1, 6);
    expect(mean[0]).toBeCloseTo(trajectory.reduce((sum, { gates }) => sum + gates[0]!, 0) / 3, 12);
  });

  it("are spread evenly", () => {
    expect(evenTimesteps(4, 1000)).toEqual([125, 375, 625, 875]);
  });

  it("refuse timesteps outside the schedule, and no images", async () => {
    await expect(gatesOverTimesteps(fera, { ...noisy, timesteps: [1000] })).rejects.toThrow(/0 to 999.*got 1000/);
    await expect(gatesOverTimesteps(fera, { ...noisy, timesteps: [] })).rejects.toThrow(/at least one; got none/);
    const latents = tensor(new Float32Array(0), [0, 4, 8, 8]);
    await expect(gatesOverTimesteps(fera, { ...noisy, latents })).rejects.toThrow(/at least one image/);
  });
});

describe("frozen gates", () => {
  it("lose nothing where the live gates never change", async () => {
    const gates = [0.2, 0.5, 0.3];
    const state = new Map(adapter.state);
    state.set("router.net.2.weight", tensor(new Float32Array(3 * 64), [3, 64]));
    const bias = gates.map((gate) => adapter.config.routerTau * Math.log(gate));
    state.set("router.net.2.bias", tensor(Float32Array.from(bias), [3]));
    const constant = { ...adapter, state };
    fera.useAdapter(constant);
    const { ofOutput, ofEffect } = await freezingError(fera, freezeGates(constant, gates), noisy);
    expect(ofOutput).toBeLessThan(1e-6);
    expect(ofEffect).toBeLessThan(1e-3);
    const other = await freezingError(fera, freezeGates(constant, [0.5, 0.2, 0.3]), noisy);
    expect(other.ofEffect).toBeGreaterThan(0.01);
  });

  it("are measured against live routing, timestep by timestep", async () => {
    fera.useAdapter(adapter);
    const mean = meanGates(await gatesOverTimesteps(fera, noisy));
    const frozen = freezeGates(adapter, mean);
    let passes = 0;
    const error = await freezingError(fera, frozen, noisy, {
      onProgress: (done) => {
        passes = done;
      },
    });
    expect(passes).toBe(3 * 2 * 3);
    expect(error.perTimestep.map(({ timestep }) => timestep)).toEqual(noisy.timesteps);

    const single = new FeRAModel(fera.model);
    single.useAdapter(frozen);
    const noise = randn(noisy.latents.shape, { generator: new Generator(noisy.seed) });
    const timesteps = tensor([100, 100], [2], "int64");
    const latents = noisy.scheduler.addNoise(noisy.latents, noise, timesteps);
    const inputs = { latents, timesteps, encoderHiddenStates: noisy.encoderHiddenStates };
    const [live, still] = [(await fera.predict(inputs)).data, (await single.predict(inputs)).data];
    const base = (await fera.model.predict(inputs)).data;
    const norm = (values: Float32Array) => Math.hypot(...values);
    const difference = norm(live.map((value, i) => value - still[i]!));
    expect(difference).toBeGreaterThan(0);
    expect(error.perTimestep[0]!.ofOutput / (difference / norm(live))).toBeCloseTo(1, 2);
    expect(error.perTimestep[0]!.ofEffect! / (difference / norm(live.map((v, i) => v - base[i]!)))).toBeCloseTo(1, 2);
    await single.release();
  });

  it("report no share of the change where the adapter changes nothing", async () => {
    const fresh = new FeRAModel(fera.model);
    const state = fresh.stateDict();
    const untouched = { config: fresh.config, state, layers: fresh.layers, hasConfig: true };
    const error = await freezingError(fresh, freezeGates(untouched, [1, 0, 0]), noisy);
    expect(error.ofOutput).toBe(0);
    expect(error.ofEffect).toBeUndefined();
  });
});
