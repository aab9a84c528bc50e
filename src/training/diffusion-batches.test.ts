import { describe, expect, it } from "vitest";
import { createObjective } from "../diffusion/index.js";
import { Generator, randint, randn } from "../tensor/random.js";
import { zeros } from "../tensor/tensor.js";
import { DiffusionBatches } from "./diffusion-batches.js";
import type { EncodedDataset } from "./encoded-dataset.js";
import { diffusionBatch } from "./noised-batch.js";

const [N, C, H, W] = [3, 4, 5, 6];
const data: EncodedDataset = {
  latents: randn([N, C, H, W], { generator: new Generator(1) }),
  conditioning: { encoderHiddenStates: zeros([N, 2, 3]) },
  empty: { encoderHiddenStates: zeros([1, 2, 3]) },
};
const objective = createObjective({ prediction_type: "epsilon" });
const draw = (noiseOffset?: number) =>
  diffusionBatch(data, [2, 0], {
    objective,
    generator: new Generator(7),
    ...(noiseOffset !== undefined && { noiseOffset }),
  });

describe("noiseOffset", () => {
  it("adds one more normal number per channel, drawn after the noise, to noise, target and latents", () => {
    const generator = new Generator(7);
    randint(0, 1000, [2], { generator });
    const noise = randn([2, C, H, W], { generator }).data;
    const offsets = randn([2, C, 1, 1], { generator }).data;
    const expected = noise.map((value, i) => value + Math.fround(0.1) * offsets[Math.floor(i / (H * W))]!);
    const batch = draw(0.1);
    for (const [i, value] of expected.entries()) expect(batch.noise.data[i]).toBeCloseTo(value, 6);
    expect(batch.target.data).toEqual(batch.noise.data);
    expect(batch.latents.data).toEqual(
      objective.noised(rows(batch), batch.noise, Array.from(batch.timesteps.data as BigInt64Array, Number)).latents
        .data,
    );
  });

  it("changes nothing at 0, the numbers drawn afterwards included", async () => {
    const stream = async (options: { noiseOffset?: number }) => {
      const batches = new DiffusionBatches(data, { batchSize: 2, objective, generator: new Generator(7), ...options });
      return [await batches.next(), await batches.next(), batches.state()];
    };
    expect(await stream({ noiseOffset: 0 })).toEqual(await stream({}));
    expect(await stream({ noiseOffset: 0.1 })).not.toEqual(await stream({}));
  });

  it.each([-0.1, Number.NaN, Number.POSITIVE_INFINITY])("refuses %s", (noiseOffset) => {
    const options = { batchSize: 2, objective, generator: new Generator(7), noiseOffset };
    expect(() => new DiffusionBatches(data, options)).toThrow(/noiseOffset must be a finite number, 0 or more; got/);
  });
});

/** The clean latents of the rows that `draw` takes. */
function rows({ latents: { shape } }: { latents: { shape: readonly number[] } }) {
  const clean = zeros([...shape]);
  const size = C * H * W;
  clean.data.set(data.latents.data.subarray(2 * size, 3 * size), 0);
  clean.data.set(data.latents.data.subarray(0, size), size);
  return clean;
}

it("captionDropout is refused where nothing says what an empty caption is", () => {
  const options = { batchSize: 2, objective, generator: new Generator(7), captionDropout: 0.1 };
  expect(() => new DiffusionBatches({ ...data, empty: {} }, options)).toThrow(
    "captionDropout 0.1 needs what an empty caption is",
  );
});
