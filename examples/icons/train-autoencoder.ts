// Trains the embedded model's autoencoder on the drawings of all five icon sets. Its encoder is computed, not trained: it gives
// the principal components of 8×8 pixels. The decoder learns to undo it, from crops of 64×64 pixels out of drawings of 128×128.
// The learning rate falls with time, so that a run ends well in whatever time it is given; a decoder that is there is trained
// further.
// Usage: npx tsx examples/icons/train-autoencoder.ts OUTPUT_FOLDER [MINUTES]

import { mkdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gradients } from "../../src/autodiff/index.js";
import type { Graph } from "../../src/graph/index.js";
import * as ops from "../../src/graph/index.js";
import { AutoencoderTiny, decodeTiny } from "../../src/models/autoencoder-tiny/autoencoder-tiny.js";
import { ModelWeights, Scope, TrainableParameters } from "../../src/nn/index.js";
import { compileDataParallel } from "../../src/runtime/index.js";
import { writeSafetensors } from "../../src/storage/index.js";
import "../../src/runtime/node.js";
import { Generator, rand, randn } from "../../src/tensor/random.js";
import { type Tensor, tensor } from "../../src/tensor/tensor.js";
import { ICON_STYLES, type IconStyle, rasterizeIcons, toModelInput } from "../../src/training/data/icons.js";
import { encodeImages } from "../../src/training/encode-images.js";
import { clipGradients } from "../../src/training/optimizers/index.js";
import { takeWeights } from "./earlier-weights.js";
import { MatrixMomentum, OrthogonalizedModel } from "./matrix-momentum.js";
import { autoencoderNames } from "./names.js";
import { linearEncoder, principalComponents } from "./principal-components.js";
import { AUTOENCODER_CONFIG, IMAGE_SIZE, LATENT_CHANNELS, LATENT_DEVIATION, PATCH, SEED, WHITENING } from "./recipe.js";

const [output = "runs/embedded/vae", minutesText = "40"] = process.argv.slice(2);
const MINUTES = Number(minutesText);
const BATCH = 16;
const CROP = 64;
const SIZE = IMAGE_SIZE;
const LEARNING_RATE = 2e-3;
const WARMUP_STEPS = 50;
const PATCHES_OF_A_STYLE = 40_000;
/** Largest deviation of the noise on the latents, relative to theirs: the decoder must bear what a denoiser leaves. */
const LATENT_NOISE = 0.1;
/** Drawings of each style that are measured whole, spread over the names. */
const MEASURED = 64;
const MEASURED_BATCH = 8;

const config = AUTOENCODER_CONFIG;
const generator = new Generator(SEED);
const styles = Object.keys(ICON_STYLES) as IconStyle[];
const names = autoencoderNames();
const drawings = new Map<IconStyle, Uint8Array>();
for (const style of styles) drawings.set(style, await rasterizeIcons(style, names, SIZE));

const weights = new Map<string, Tensor<"float32">>();
const fresh = AutoencoderTiny.fromConfig(config, generator);
for (const [name, weight] of fresh.weights.weights) if ("tensor" in weight) weights.set(name, weight.tensor);
const file = join(output, "diffusion_pytorch_model.safetensors");
if (await stat(file).catch(() => undefined)) {
  await takeWeights(file, weights);
  console.log(`goes on from ${file}`);
} else {
  const components = principalComponents([...drawings.values()], SIZE, {
    patch: PATCH,
    samples: PATCHES_OF_A_STYLE,
    generator,
  });
  const kept = components.variances.slice(0, LATENT_CHANNELS);
  const lost = components.variances.slice(LATENT_CHANNELS).reduce((sum, variance) => sum + variance, 0);
  console.log(
    `${LATENT_CHANNELS} components alone would give ${decibels((4 * lost) / (3 * PATCH * PATCH)).toFixed(2)} dB`,
  );
  const relative = Array.from(kept, (variance) => variance ** (-WHITENING / 2));
  const power = relative.reduce((sum, gain, k) => sum + gain * gain * kept[k]!, 0) / LATENT_CHANNELS;
  const gains = relative.map((gain) => (gain * LATENT_DEVIATION) / Math.sqrt(power));
  const encoder = linearEncoder(components, config.encoder_block_out_channels[0]!, gains);
  for (const [name, value] of encoder) weights.get(name)!.data.set(value.data);
}
const vae = new AutoencoderTiny(
  fresh.config,
  new ModelWeights(new Map([...weights].map(([name, value]) => [name, { shape: value.shape, tensor: value }])), output),
);
const encoded = new Map<IconStyle, Tensor<"float32">>();
for (const [style, rgb] of drawings) {
  const image = async (index: number) => toModelInput(rgb, SIZE, [index]);
  encoded.set(style, (await encodeImages(vae, { size: names.length, imageSize: SIZE, image })).latents);
}
await vae.release();

const parameters = new Map([...weights].filter(([name]) => name.startsWith("decoder.")));
const count = [...parameters.values()].reduce((sum, { size }) => sum + size, 0);
console.log(`${count} parameters in the decoder, ${names.length} drawings in each of ${styles.length} styles`);

const latentSide = CROP / PATCH;
const latentShape = [BATCH, LATENT_CHANNELS, latentSide, latentSide];
const wanted: string[] = [];
const step = await compileDataParallel(build, { batchSize: BATCH, parameterBytes: 4 * count });

function build(graph: Graph, batchSize: number): void {
  const source = new TrainableParameters(parameters, "decoder");
  const image = graph.input("image", "float32", [batchSize, 3, CROP, CROP]);
  const latents = graph.input("latents", "float32", [batchSize, ...latentShape.slice(1)]);
  const decoded = decodeTiny(new Scope(graph, source), latents, fresh.config);
  const difference = ops.sub(decoded, image);
  const square = ops.mul(difference, difference);
  // √(d² + ε²): absolute error with a smooth foot, which keeps edges sharp.
  const absolute = ops.reduceMean(ops.sqrt(ops.add(square, 1e-3)));
  const mse = ops.reduceMean(square);
  const loss = ops.add(ops.mul(mse, 4), absolute);
  const inputs = [...source.values];
  wanted.splice(0, wanted.length, ...inputs.map(([name]) => name));
  gradients(
    loss,
    inputs.map(([, value]) => value),
  ).forEach((gradient, i) => {
    graph.output(`gradient.${wanted[i]}`, gradient);
  });
  graph.output("loss", loss);
  graph.output("mse", mse);
}

const optimizer = new MatrixMomentum(LEARNING_RATE, [0.9, 0.99], 0);
const trainable = await OrthogonalizedModel.compile(
  {
    parameters,
    async compute(batch: Record<string, Tensor>) {
      const result = await step.run(batch, Object.fromEntries(parameters));
      const gradients = new Map(wanted.map((name) => [name, result[`gradient.${name}`]!.data as Float32Array]));
      clipGradients(gradients, 1);
      const numberOf = (name: string) => (result[name]!.data as Float32Array)[0]!;
      return { losses: { loss: numberOf("loss"), mse: numberOf("mse") }, gradients };
    },
  },
  optimizer,
);
const data = new Map([...parameters].map(([name, value]) => [name, value.data]));
const shapes = new Map([...parameters].map(([name, value]) => [name, value.shape]));
await mkdir(output, { recursive: true });
const started = Date.now();
const log: string[] = [];
const minutesNow = () => (Date.now() - started) / 60_000;

for (let index = 0; minutesNow() < MINUTES; index++) {
  const { losses, gradients } = await trainable.compute(crops());
  const rate = Math.min(1, index / WARMUP_STEPS) * 0.5 * (1 + Math.cos((Math.PI * minutesNow()) / MINUTES));
  optimizer.step(data, gradients, { learningRate: LEARNING_RATE * rate, shapes });
  if (index % 20 === 0) {
    const { loss, mse } = losses;
    const psnr = decibels(mse!);
    const minutes = minutesNow();
    log.push(JSON.stringify({ step: index, loss, psnr, minutes }));
    console.log(
      `step ${index} loss ${loss.toFixed(4)} psnr ${psnr.toFixed(2)} dB ` +
        `${((index * BATCH) / minutes / 60).toFixed(1)} crops/s ${minutes.toFixed(1)} min`,
    );
  }
  if (index % 400 === 399) await save();
}
await save();
process.exit(0);

async function save(): Promise<void> {
  await writeSafetensors(file, weights, { format: "pt" });
  const scaling = { scaling_factor: 1 / LATENT_DEVIATION };
  const described = { _class_name: "AutoencoderTiny", ...config, ...scaling };
  await writeFile(join(output, "config.json"), `${JSON.stringify(described, null, 2)}\n`);
  const measured = await measure();
  console.log(
    Object.entries(measured)
      .map(([style, psnr]) => `${style} ${psnr.toFixed(2)} dB`)
      .join(", "),
  );
  log.push(JSON.stringify({ wholeDrawings: measured, minutes: minutesNow() }));
  await writeFile(join(output, "metrics.jsonl"), `${log.join("\n")}\n`);
}

/** Mean peak signal-to-noise ratio of whole drawings by style, without noise on the latents. */
async function measure(): Promise<Record<string, number>> {
  const result: Record<string, number> = {};
  const pixels = 3 * SIZE * SIZE;
  for (const style of styles) {
    let sum = 0;
    for (let first = 0; first < MEASURED; first += MEASURED_BATCH) {
      const rows = Array.from({ length: MEASURED_BATCH }, (_, i) =>
        Math.floor(((first + i) * names.length) / MEASURED),
      );
      const image = tensor(toModelInput(drawings.get(style)!, SIZE, rows), [MEASURED_BATCH, 3, SIZE, SIZE]);
      const decoded = await vae.decode((await vae.encode(image)).latents);
      for (let i = 0; i < MEASURED_BATCH; i++) {
        let error = 0;
        for (let j = i * pixels; j < (i + 1) * pixels; j++) {
          const value = Math.min(1, Math.max(-1, decoded.data[j]!));
          error += (value - image.data[j]!) ** 2;
        }
        sum += decibels(error / pixels);
      }
    }
    result[style] = sum / MEASURED;
  }
  await vae.release();
  return result;
}

/** Of a mean squared error between values in −1 … 1. */
function decibels(mse: number): number {
  return 10 * Math.log10(4 / mse);
}

/** Random crops of random drawings and the latents of the same places with some noise; mere background is drawn again. */
function crops(): { image: Tensor<"float32">; latents: Tensor<"float32"> } {
  const image = tensor(new Float32Array(BATCH * 3 * CROP * CROP), [BATCH, 3, CROP, CROP]);
  const latents = randn(latentShape, { generator });
  const grid = SIZE / PATCH;
  const each = latents.size / BATCH;
  for (let i = 0; i < BATCH; ) {
    const [pick, which, across, down, noisy] = rand([5], { generator }).data as unknown as number[];
    const style = styles[Math.floor(which! * styles.length)]!;
    const icon = Math.floor(pick! * names.length);
    const left = Math.floor(across! * (grid - latentSide + 1));
    const top = Math.floor(down! * (grid - latentSide + 1));
    copyCrop(drawings.get(style)!, icon, { left: left * PATCH, top: top * PATCH }, image.data, i);
    const values = image.data.subarray(i * 3 * CROP * CROP, (i + 1) * 3 * CROP * CROP);
    if (values.every((value) => value === values[0])) continue;
    const source = encoded.get(style)!.data;
    const deviation = LATENT_NOISE * LATENT_DEVIATION * noisy!;
    for (let j = 0; j < each; j++) {
      const channel = Math.floor(j / latentSide ** 2);
      const y = top + (Math.floor(j / latentSide) % latentSide);
      const x = left + (j % latentSide);
      const clean = source[((icon * LATENT_CHANNELS + channel) * grid + y) * grid + x]!;
      latents.data[i * each + j] = clean + deviation * latents.data[i * each + j]!;
    }
    i++;
  }
  return { image, latents };
}

/** Copies a square of a drawing, as −1 … 1, to place `index` of a batch `[B, 3, CROP, CROP]`. */
function copyCrop(
  rgb: Uint8Array,
  icon: number,
  { left, top }: { left: number; top: number },
  batch: Float32Array,
  index: number,
): void {
  for (let y = 0; y < CROP; y++) {
    for (let x = 0; x < CROP; x++) {
      const from = ((icon * SIZE + top + y) * SIZE + left + x) * 3;
      const to = (index * 3 * CROP + y) * CROP + x;
      for (let c = 0; c < 3; c++) batch[to + c * CROP * CROP] = rgb[from + c]! / 127.5 - 1;
    }
  }
}
