import { expect, it } from "vitest";
import { createObjective } from "../diffusion/index.js";
import { Generator, randn } from "../tensor/random.js";
import { tensor } from "../tensor/tensor.js";
import { DiffusionBatches } from "./diffusion-batches.js";
import type { EncodedDataset } from "./encoded-dataset.js";
import { type NoisingOptions, noisedBatch } from "./noised-batch.js";

const [N, C, H, W] = [6, 4, 8, 8];
const data: EncodedDataset = {
  latents: randn([N, C, H, W], { generator: new Generator(1) }),
  latentStd: randn([N, C, H, W], { generator: new Generator(2) }),
  conditioning: { encoderHiddenStates: randn([N, 2, 3], { generator: new Generator(3) }) },
  empty: { encoderHiddenStates: randn([1, 2, 3], { generator: new Generator(4) }) },
};

const ALL: NoisingOptions = {
  noiseOffset: 0.1,
  noiseOffsetRandom: true,
  multiresNoiseIterations: 6,
  inputPerturbation: 0.1,
  timestepSampling: "logit-normal",
  dynamicTimestepShift: true,
  minTimestep: 10,
  maxTimestep: 900,
};

it.each(["uniform", "stratified", "logit-normal", "mode"] as const)(
  "batches with every option on and %s timesteps go on from a saved state to the bit",
  async (timestepSampling) => {
    const objective = createObjective({}, { minSnrGamma: 5, loss: "smooth-l1" });
    const stream = (seed: number) =>
      new DiffusionBatches(data, {
        ...{ ...ALL, timestepSampling, objective, batchSize: 4, captionDropout: 0.5 },
        generator: new Generator(seed),
      });
    const whole = stream(5);
    await whole.next();
    const state = JSON.parse(JSON.stringify(whole.state()));
    const expected = [await whole.next(), await whole.next()];
    const resumed = stream(6);
    resumed.restore(state);
    expect([await resumed.next(), await resumed.next()]).toEqual(expected);
  },
);

it("a batch of flow has its timesteps in between integers, and what lies there", () => {
  const objective = createObjective({ _class_name: "FlowMatchEulerDiscreteScheduler", shift: 3 });
  const batch = noisedBatch(data, { objective, generator: new Generator(5) });
  expect(batch.timesteps.dtype).toBe("float32");
  const timesteps = Array.from(batch.timesteps.data, Number);
  expect(timesteps.some((timestep) => !Number.isInteger(timestep))).toBe(true);
  const { latentStd: _, ...certain } = data;
  const plain = noisedBatch(certain, { objective, generator: new Generator(5), timesteps });
  expect(plain.latents).toEqual(objective.noised(data.latents, plain.noise, timesteps).latents);
});

it("a batch has the images' weights times those of their noise levels, and masks as the options say", () => {
  const objective = createObjective({}, { minSnrGamma: 5 });
  const lossWeights = tensor([1, 2, 1, 1, 0.5, 1], [N]);
  const lossMask = tensor(
    Array.from({ length: N * H * W }, (_, i) => (i < H * W ? 0 : i % 4 === 0 ? 1 : 0.1)),
    [N, 1, H, W],
  );
  const timesteps = [1, 100, 300, 500, 700, 999];
  const options = { objective, generator: new Generator(5), timesteps };
  const batch = noisedBatch({ ...data, lossWeights, lossMask }, { ...options, unmaskedWeight: 0.2 });
  timesteps.forEach((timestep, i) => {
    expect(batch.lossWeights!.data[i]).toBeCloseTo(lossWeights.data[i]! * objective.lossWeight(timestep), 6);
  });
  expect([...new Set(batch.lossMask!.data as Float32Array)]).toEqual([Math.fround(0.2), 1]);
  const normalized = noisedBatch({ ...data, lossMask }, { ...options, normalizeMaskedLoss: true }).lossMask!
    .data as Float32Array;
  for (let i = 0; i < N; i++) {
    const mean = normalized.subarray(i * H * W, (i + 1) * H * W).reduce((sum, value) => sum + value, 0) / (H * W);
    // A mask of nothing stays one.
    expect(mean).toBeCloseTo(i === 0 ? 0 : 1, 5);
  }
  expect(noisedBatch(data, { ...options, objective: createObjective({}) })).not.toHaveProperty("lossWeights");
});
