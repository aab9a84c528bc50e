import { describe, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import { ConfigError, ShapeError } from "../../errors.js";
import { readSafetensors } from "../../storage/index.js";
import { Generator } from "../../tensor/random.js";
import { zeros } from "../../tensor/tensor.js";
import "../../runtime/node.js";
import "../../storage/node.js";
import { AutoencoderTiny } from "./autoencoder-tiny.js";

it("agrees with diffusers on latents and images", async () => {
  const model = await AutoencoderTiny.fromPretrained("test/reference/vae-tiny", { subfolder: "vae" });
  const { tensors } = await readSafetensors("test/reference/vae-tiny/expected.safetensors");
  const { latents } = await model.encode(tensors.get("image")!);
  expect(relativeError(latents.data, tensors.get("latents")!.data as Float32Array)).toBeLessThan(2e-4);
  const decoded = await model.decode(tensors.get("latents")!);
  expect(relativeError(decoded.data, tensors.get("decoded")!.data as Float32Array)).toBeLessThan(2e-4);
  await model.release();
});

it("rejects an image whose sides the downscale does not divide", async () => {
  const model = await AutoencoderTiny.fromPretrained("test/reference/vae-tiny", { subfolder: "vae" });
  const { tensors } = await readSafetensors("test/reference/vae-tiny/expected.safetensors");
  const image = tensors.get("image")!;
  await expect(model.encode(image.reshape([2, 3, 40, 32]).reshape([2, 3, 20, 64]))).rejects.toThrow(/multiples of 8/);
});

describe("refuses by name and value", () => {
  const make = (change: object) => () => AutoencoderTiny.fromConfig(change, new Generator(0));
  for (const [option, value] of [
    ["act_fn", "silu"],
    ["upsample_fn", "bilinear"],
    ["upsampling_scaling_factor", 4],
    ["scaling_factor", 0],
    ["tiling", true],
  ] as const) {
    it(`${option} = ${value}`, () => {
      expect(make({ [option]: value })).toThrow(ConfigError);
      expect(make({ [option]: value })).toThrow(option);
      expect(make({ [option]: value })).toThrow(JSON.stringify(value));
    });
  }

  it("widths that differ or are not as many as the stages", () => {
    expect(make({ encoder_block_out_channels: [8, 8, 8, 16] })).toThrow(
      /encoder_block_out_channels: must be one width/,
    );
    expect(make({ decoder_block_out_channels: [8, 8] })).toThrow(
      /decoder_block_out_channels: must be one width.*\[8,8\]/,
    );
  });

  it("images and latents of other channels", async () => {
    const model = await AutoencoderTiny.fromPretrained("test/reference/vae-tiny", { subfolder: "vae" });
    await expect(model.encode(zeros([1, 4, 8, 8]))).rejects.toThrow(/\[B, 3, H, W\]/);
    await expect(model.decode(zeros([1, 3, 8, 8]))).rejects.toThrow(ShapeError);
  });
});
