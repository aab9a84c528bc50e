import { expect, it } from "vitest";
import { relativeError } from "../../test/support/check-gradients.js";
import { readSafetensors } from "../formats/index.js";
import "./pretrained-node.js";
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
