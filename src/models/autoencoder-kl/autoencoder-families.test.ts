// The autoencoders of the families of flow matching against diffusers (test/parity/make-family-vae-golden.py).

import { describe, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import { readSafetensors } from "../../storage/index.js";
import "../../runtime/node.js";
import "../../storage/node.js";
import { Generator, randn } from "../../tensor/random.js";
import { type Tensor, zeros } from "../../tensor/tensor.js";
import { AutoencoderTiny } from "../autoencoder-tiny/autoencoder-tiny.js";
import { AutoencoderKL } from "./autoencoder-kl.js";
import { AutoencoderKLFlux2 } from "./autoencoder-kl-flux2.js";
import { scaledLatents, scaledSpread, unscaledLatents } from "./latent-scaling.js";

/** Relative L2 distance between two float32 implementations. */
const TOLERANCE = 2e-5;
const FOLDER = "test/reference/vae-families";
const { tensors, metadata } = await readSafetensors(`${FOLDER}/expected.safetensors`);
const names = JSON.parse(metadata.models!) as string[];

function expectAgrees(name: string, came: Tensor): void {
  const { shape, data } = tensors.get(name)!;
  expect(came.shape, name).toEqual(shape);
  expect(relativeError(came.data as Float32Array, data as Float32Array), name).toBeLessThan(TOLERANCE);
}

const CLASSES = {
  kl16: AutoencoderKL,
  "kl16-plain": AutoencoderKL,
  flux2: AutoencoderKLFlux2,
  tiny16: AutoencoderTiny,
};

it("has values for these models", () => expect(names).toEqual(Object.keys(CLASSES)));

describe.each(Object.entries(CLASSES))("%s agrees with diffusers", (name, Class) => {
  it("on latents, their scaling, and images", async () => {
    await using vae = await Class.fromPretrained(`${FOLDER}/${name}`);
    const image = randn(JSON.parse(metadata.shape!), { generator: new Generator(names.indexOf(name)) });
    const encoded = await vae.encode(image);
    const z = "latents" in encoded ? encoded.latents : encoded.mean;
    expectAgrees(`${name}.${"latents" in encoded ? "latents" : "mean"}`, z);
    if ("logvar" in encoded) expectAgrees(`${name}.logvar`, encoded.logvar);
    const scaling = await vae.latentScaling();
    const scaled = scaledLatents(z, scaling);
    expectAgrees(`${name}.scaled`, name === "flux2" ? packed(scaled) : scaled);
    const unscaled = unscaledLatents(scaled, scaling);
    expectAgrees(`${name}.unscaled`, unscaled);
    expectAgrees(`${name}.decoded`, await vae.decode(unscaled));
  });
});

it("spreads are scaled without the shift", async () => {
  await using vae = await AutoencoderKLFlux2.fromPretrained(`${FOLDER}/flux2`);
  const scaling = await vae.latentScaling();
  const [z, std] = [randn([1, 6, 4, 4]), randn([1, 6, 4, 4])];
  const moved = z.data.map((value, i) => value + std.data[i]!);
  const difference = scaledLatents({ ...z, data: moved, shape: z.shape } as typeof z, scaling).data.map(
    (value, i) => value - scaledLatents(z, scaling).data[i]!,
  );
  expect(relativeError(scaledSpread(std, scaling).data, difference)).toBeLessThan(1e-5);
});

describe("AutoencoderKLFlux2", () => {
  const make = (change: object) => () => AutoencoderKLFlux2.fromConfig(change, new Generator(0));
  it.each([
    [{ patch_size: [1, 1] }, /patch_size/],
    [{ scaling_factor: 0.5 }, /scaling_factor/],
    [{ decoder_block_out_channels: [8, 8] }, /decoder_block_out_channels: must be as many as block_out_channels/],
  ])("refuses %j", (change, message) => expect(make(change)).toThrow(message));

  it("refuses latents of other channels, under its own name", async () => {
    await using vae = await AutoencoderKLFlux2.fromPretrained(`${FOLDER}/flux2`);
    await expect(vae.decode(zeros([1, 4, 2, 2]))).rejects.toThrow(/AutoencoderKLFlux2.decode.*\[B, 6, H, W\]/);
    const scaling = await vae.latentScaling();
    expect(() => scaledLatents(zeros([1, 4, 2, 2]), scaling)).toThrow(/latents must be \[B, 6, h, w\]/);
  });
});

/** `[B, C, h, w]` → `[B, 4C, h/2, w/2]`, channel 4c + 2·(row in the patch) + column in the patch. */
function packed({ shape, data }: Tensor<"float32">): Tensor {
  const [batch, channels, height, width] = shape as [number, number, number, number];
  const result = zeros([batch, 4 * channels, height / 2, width / 2]);
  data.forEach((value, i) => {
    const [x, y] = [i % width, Math.floor(i / width) % height];
    const plane = Math.floor(i / (width * height));
    const channel = 4 * plane + 2 * (y % 2) + (x % 2);
    result.data[(channel * (height / 2) + (y >> 1)) * (width / 2) + (x >> 1)] = value;
  });
  return result;
}
