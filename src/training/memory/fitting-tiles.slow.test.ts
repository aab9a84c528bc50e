// Tiles on the embedded autoencoder, which is trained: what they cost in accuracy can be seen.

import { expect, it } from "vitest";
import "../../index.js";
import { readImage } from "../../images/image-file.js";
import { AutoencoderTiny } from "../../index.js";
import { rehearsedBytes } from "../../runtime/rehearsal.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import { encoderKey } from "../cache/cache-key.js";
import { setFittingTiles } from "./fitting-tiles.js";

const bytesOfTensor = ({ data }: Tensor<"float32">) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** Sums of squared differences between neighbouring columns, by column. */
function steps({ data, shape }: Tensor<"float32">): number[] {
  const width = shape[3]!;
  const sums = new Array<number>(width - 1).fill(0);
  for (let row = 0; row < data.length; row += width) {
    for (let column = 0; column < width - 1; column++) {
      sums[column]! += (data[row + column + 1]! - data[row + column]!) ** 2;
    }
  }
  return sums;
}

it("takes the largest tiles that fit, which leave no seams, and which the cache's key tells of", async () => {
  const vae = await AutoencoderTiny.fromPretrained("assets/icons/vae");
  const { data } = await readImage("assets/icons/samples.png", { width: 256, height: 256, multipleOf: 8 });
  const image = tensor(data, [1, 3, 256, 256]);
  const { latents } = await vae.encode(image);
  const whole = await vae.decode(latents);
  const untiledKey = await encoderKey([vae]);
  await vae.release();
  const bytesOf = () => rehearsedBytes(() => vae.decode(latents).finally(() => vae.release()));
  const side = 256;
  const all = await setFittingTiles(vae, "decode", { side, fits: () => true, bytesOf });
  expect([all.side, vae.tilings]).toEqual([undefined, {}]);
  const half = await setFittingTiles(vae, "decode", { side, fits: (bytes) => bytes < all.bytes / 2, bytesOf });
  expect(half.side).toBe(128);
  expect(half.bytes).toBeLessThan(all.bytes / 2);
  expect(await encoderKey([vae])).toBe(untiledKey);

  const tiled = await vae.decode(latents);
  const difference = tensor(
    tiled.data.map((value, i) => value - whole.data[i]!),
    whole.shape,
  );
  // 45 dB for values from −1 to 1.
  const meanSquare = difference.data.reduce((sum, value) => sum + value ** 2, 0) / difference.size;
  expect(10 * Math.log10(4 / meanSquare)).toBeGreaterThan(45);
  // No column stands out: the worst has a small part of what neighbours differ in anyway.
  const usual = steps(whole).reduce((sum, value) => sum + value, 0) / 255;
  expect(Math.sqrt(Math.max(...steps(difference)) / usual)).toBeLessThan(0.25);

  const none = await setFittingTiles(vae, "decode", { side, fits: () => false, bytesOf });
  expect(none.side).toBe(128);
  vae.enableTiling({ tileSampleMinSize: 128, tileOverlapFactor: 0.25, direction: "encode" });
  expect(Object.keys(vae.tilings).sort()).toEqual(["decode", "encode"]);
  expect(await encoderKey([vae])).not.toBe(untiledKey);
  vae.disableTiling("encode");
  expect(Object.keys(vae.tilings)).toContain("decode");
  vae.disableTiling();
  // Not toEqual, which compares values one by one.
  expect(Buffer.compare(bytesOfTensor(await vae.decode(latents)), bytesOfTensor(whole))).toBe(0);
  await vae.release();
});
