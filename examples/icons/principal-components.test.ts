import { describe, expect, it } from "vitest";
import { AutoencoderTiny } from "../../src/models/autoencoder-tiny/autoencoder-tiny.js";
import { ModelWeights } from "../../src/nn/index.js";
import "../../src/runtime/node.js";
import { Generator, rand } from "../../src/tensor/random.js";
import { tensor } from "../../src/tensor/tensor.js";
import { rasterizeIcons, toModelInput } from "../../src/training/data/icons.js";
import { linearEncoder, principalComponents, symmetricEigen } from "./principal-components.js";

const SIDE = 16;

describe("eigenvectors of a symmetric matrix", () => {
  it("are orthonormal and make the matrix again", () => {
    const size = 6;
    const random = rand([size, size], { generator: new Generator(3) }).data;
    const matrix = Float64Array.from({ length: size * size }, (_, i) => {
      const [row, column] = [Math.floor(i / size), i % size];
      return random[row * size + column]! + random[column * size + row]!;
    });
    const { values, vectors } = symmetricEigen(matrix, size);
    expect([...values]).toEqual([...values].sort((a, b) => b - a));
    for (let row = 0; row < size; row++) {
      for (let column = 0; column < size; column++) {
        const again = vectors.reduce((sum, vector, k) => sum + values[k]! * vector[row]! * vector[column]!, 0);
        const product = vectors[row]!.reduce((sum, value, i) => sum + value * vectors[column]![i]!, 0);
        expect(again).toBeCloseTo(matrix[row * size + column]!, 10);
        expect(product).toBeCloseTo(row === column ? 1 : 0, 10);
      }
    }
  });
});

describe("the linear encoder", () => {
  it.each([4, 8])("gives each patch's components times their gains, for patches of %i pixels", async (patch) => {
    const rgb = await rasterizeIcons("noto", ["rocket", "red-apple"], SIDE, { cache: false });
    const components = principalComponents([rgb], SIDE, { patch, samples: 200, generator: new Generator(1) });
    const gains = [0.5, 1, 2, 0.25, 1, 1];
    const width = 48;
    const widths = Array.from({ length: Math.log2(patch) + 1 }, () => width);
    const config = {
      encoder_block_out_channels: widths,
      decoder_block_out_channels: widths,
      num_encoder_blocks: widths.map(() => 0),
      num_decoder_blocks: widths.map(() => 0),
      latent_channels: gains.length,
    };
    const model = AutoencoderTiny.fromConfig(config, new Generator(2));
    const weights = new Map(model.weights.weights);
    for (const [name, value] of linearEncoder(components, width, gains)) {
      expect(weights.get(name)?.shape, name).toEqual(value.shape);
      weights.set(name, { shape: value.shape, tensor: value });
    }
    const encoder = new AutoencoderTiny(model.config, new ModelWeights(weights, "test"));
    const { latents } = await encoder.encode(tensor(toModelInput(rgb, SIDE, [0, 1]), [2, 3, SIDE, SIDE]));
    await encoder.release();

    const places = SIDE / patch;
    for (let image = 0; image < 2; image++) {
      for (let place = 0; place < places * places; place++) {
        const [row, column] = [Math.floor(place / places), place % places];
        gains.forEach((gain, k) => {
          let expected = 0;
          for (let i = 0; i < 3 * patch * patch; i++) {
            const y = row * patch + Math.floor(i / (3 * patch));
            const x = column * patch + (Math.floor(i / 3) % patch);
            const value = rgb[((image * SIDE + y) * SIDE + x) * 3 + (i % 3)]! / 255;
            expected += gain * components.vectors[k]![i]! * (value - components.mean[i]!);
          }
          expect(latents.data[((image * gains.length + k) * places + row) * places + column]).toBeCloseTo(expected, 4);
        });
      }
    }
  });
});
