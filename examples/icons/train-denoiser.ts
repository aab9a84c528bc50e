// Trains the embedded model's UNet and text encoder from scratch on Noto Emoji's drawings, in the latents of its autoencoder.
// Goes on from the newest checkpoint when started again, or from the weights of a pipeline. The learning rate stays as it is until a number of steps is given
// in which to let it fall to zero; before that, too, the mean of the kept weights can be used.
// Usage: npx tsx examples/icons/train-denoiser.ts OUTPUT_FOLDER AUTOENCODER_FOLDER [--decay STEPS] [--from PIPELINE_FOLDER]
//   [--architecture unet|plain-unet|transformer] [--threads N]; all but the first are for comparison, by the processor time that each
// line tells: it is fair to runs that share a machine.

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { AutoencoderTiny } from "../../src/models/autoencoder-tiny/autoencoder-tiny.js";
import { CLIPTextModel } from "../../src/models/clip-text/clip-text-model.js";
import { CLIPTokenizer } from "../../src/models/clip-tokenizer/clip-tokenizer.js";
import { writeClipTokenizer } from "./write-clip-tokenizer.js";
import "../../src/storage/node.js";
import { SD3Transformer2DModel } from "../../src/models/sd3-transformer-2d/sd3-transformer-2d.js";
import { UNet2DConditionModel } from "../../src/models/unet-2d-condition/unet-2d-condition.js";
import "../../src/runtime/node.js";
import { createObjective } from "../../src/diffusion/index.js";
import { Generator } from "../../src/tensor/random.js";
import type { Tensor } from "../../src/tensor/tensor.js";
import { hash32 } from "../../src/training/data/icon-names.js";
import {
  captionOf,
  ICON_STYLES,
  type IconStyle,
  loadIconSet,
  rasterizeIcons,
  toModelInput,
} from "../../src/training/data/icons.js";
import { DiffusionBatches } from "../../src/training/diffusion-batches.js";
import { encodeImages, tokenizeCaptions } from "../../src/training/encode-images.js";
import { Trainer } from "../../src/training/trainer.js";
import type { ReplaceableDenoiser } from "../../src/training/whole-denoiser.js";
import { trainClipVocabulary } from "./bpe-trainer.js";
import { takeWeights } from "./earlier-weights.js";
import { MatrixMomentum, OrthogonalizedModel } from "./matrix-momentum.js";
import { captionsOf, checkCaptions, trainingNames } from "./names.js";
import * as recipe from "./recipe.js";
import { WholeModel } from "./whole-model.js";

const { positionals, values: flags } = parseArgs({
  options: {
    decay: { type: "string" },
    from: { type: "string" },
    architecture: { type: "string", default: "unet" },
    threads: { type: "string" },
  },
  allowPositionals: true,
});
const [output = "runs/embedded/denoiser", autoencoderFolder = "runs/embedded/vae"] = positionals;
/** More steps than anyone waits for: the course is cut, not planned. */
const ENDLESS = 1_000_000;

const names = trainingNames();
checkCaptions(names);
await writeClipTokenizer(join(output, "tokenizer"), { ...vocabulary(), maxLength: recipe.MAX_TOKENS });
const tokenizer = await CLIPTokenizer.fromPretrained(output);

checkWords();

const rgb = await rasterizeIcons("noto", names, recipe.IMAGE_SIZE);
const vae = await AutoencoderTiny.fromPretrained(autoencoderFolder);
const { latents } = await encodeImages(vae, {
  size: names.length,
  imageSize: recipe.IMAGE_SIZE,
  image: async (index) => toModelInput(rgb, recipe.IMAGE_SIZE, [index]),
});
await vae.release();

const generator = new Generator(recipe.SEED);
const denoiser = freshDenoiser(flags.architecture);
for (const [name, weight] of denoiser.weights.weights) {
  if (!name.endsWith("attn2.to_out.0.weight") || !("tensor" in weight)) continue;
  const { data } = weight.tensor;
  for (let i = 0; i < data.length; i++) data[i]! *= recipe.TEXT_STRENGTH;
}
const textConfig = recipe.textEncoderConfig(tokenizer.vocabSize, tokenizer.eosTokenId);
const textEncoder = CLIPTextModel.fromConfig(textConfig, generator);
if (flags.from !== undefined) {
  await takeWeights(join(flags.from, "unet", "diffusion_pytorch_model.safetensors"), tensorsOf(denoiser));
  await takeWeights(join(flags.from, "text_encoder", "model.safetensors"), tensorsOf(textEncoder));
}
const trainable = await WholeModel.compile(
  { denoiser, textEncoder },
  {
    batchSize: recipe.BATCH,
    height: recipe.LATENT_SIZE,
    width: recipe.LATENT_SIZE,
    tokens: recipe.MAX_TOKENS,
    channelWeights: channelWeights(),
    ...(flags.threads !== undefined && { threads: Number(flags.threads) }),
  },
);
const count = [...trainable.parameters.values()].reduce((sum, { size }) => sum + size, 0);
console.log(`${names.length} names, ${tokenizer.vocabSize} tokens, ${(count / 1e6).toFixed(2)} M parameters`);

const captions = names.map(captionsOf);
const tokens = captions.map((each) => tokenizeCaptions(tokenizer, each).data);
const text = tokenizeCaptions(
  tokenizer,
  captions.map(([first]) => first!),
);
chooseCaptions(0);

const stop = new AbortController();
process.on("SIGTERM", () => stop.abort());
process.on("SIGINT", () => stop.abort());

const decay = await decayPhase();
const optimizer = new MatrixMomentum(decay?.rate ?? recipe.LEARNING_RATE, [0.9, 0.99], 0.01);
const trainer = new Trainer({
  trainable: await OrthogonalizedModel.compile(trainable, optimizer),
  batches: new DiffusionBatches(
    { latents, conditioning: { inputIds: text }, empty: { inputIds: tokenizeCaptions(tokenizer, [""]) } },
    {
      batchSize: recipe.BATCH,
      captionDropout: recipe.CAPTION_DROPOUT,
      timestepSampling: "stratified",
      timestepShift: recipe.TIMESTEP_SHIFT,
      objective: createObjective(recipe.SCHEDULER_CONFIG),
      generator,
    },
  ),
  optimizer,
  steps: decay?.until ?? ENDLESS,
  schedule: decay ? "linear" : "constant",
  warmupSteps: recipe.WARMUP_STEPS,
  output,
  checkpointEvery: recipe.CHECKPOINT_EVERY,
  keepCheckpoints: recipe.KEPT_CHECKPOINTS,
  fingerprint: `embedded ${recipe.SEED}`,
  signal: stop.signal,
  onStep: ({ step, loss, mse, stepsPerSecond, seconds }) => {
    chooseCaptions(step);
    if (step % 10 !== 0) return;
    const rate = (stepsPerSecond * recipe.BATCH).toFixed(1);
    const { user, system } = process.cpuUsage(cpuAtStart);
    const times = `${seconds.toFixed(0)} s, ${((user + system) / 1e6).toFixed(0)} s of processors`;
    console.log(`step ${step} loss ${loss.toFixed(4)} mse ${mse!.toFixed(4)} ${rate} drawings/s ${times}`);
  },
});
console.log(`from step ${await trainer.resume()}`);
const cpuAtStart = process.cpuUsage();
await trainer.run();
process.exit(0);

/** Puts one of each drawing's captions in place, another one from step to step: half of the time the drawing's own name. */
function chooseCaptions(step: number): void {
  tokens.forEach((ids, row) => {
    const choices = captions[row]!.length;
    const draw = hash32(`${step} ${row}`);
    const choice = choices === 1 || draw % 2 === 0 ? 0 : 1 + ((draw >>> 1) % (choices - 1));
    text.data.set(ids.subarray(choice * recipe.MAX_TOKENS, (choice + 1) * recipe.MAX_TOKENS), row * recipe.MAX_TOKENS);
  });
}

function tensorsOf({ weights }: Pick<ReplaceableDenoiser, "weights">): Map<string, Tensor<"float32">> {
  return new Map([...weights.weights].flatMap(([name, weight]) => ("tensor" in weight ? [[name, weight.tensor]] : [])));
}

/** @throws {Error} If there is no such architecture in the recipe. */
function freshDenoiser(architecture: string): ReplaceableDenoiser {
  if (architecture === "transformer") return SD3Transformer2DModel.fromConfig(recipe.TRANSFORMER_CONFIG, generator);
  if (architecture === "plain-unet") return UNet2DConditionModel.fromConfig(recipe.PLAIN_UNET_CONFIG, generator);
  if (architecture === "unet") return UNet2DConditionModel.fromConfig(recipe.UNET_CONFIG, generator);
  throw new Error(`--architecture must be unet, plain-unet or transformer; got ${architecture}`);
}

/** Powers of the latents' channels to the recipe's exponent, divided by their mean. */
function channelWeights(): Float32Array {
  const [count, channels, height, width] = latents.shape as [number, number, number, number];
  const area = height * width;
  const weights = new Float32Array(channels);
  latents.data.forEach((value, i) => {
    weights[Math.floor(i / area) % channels]! += value ** 2 / (count * area);
  });
  const powers = weights.map((power) => power ** recipe.CHANNEL_WEIGHTING);
  const mean = powers.reduce((sum, power) => sum + power, 0) / channels;
  return powers.map((power) => power / mean);
}

/** Tokens for all captions; the trained ones count more often, so that their words become tokens of their own. */
function vocabulary() {
  const all = (Object.keys(ICON_STYLES) as IconStyle[]).flatMap((style) => loadIconSet(style).names.map(captionOf));
  const trained = names.flatMap(captionsOf);
  return trainClipVocabulary([...all, ...Array.from({ length: 20 }, () => trained).flat()], {
    size: recipe.VOCABULARY_SIZE,
  });
}

/** @throws {Error} If a word of a trained caption is more than one token. */
function checkWords(): void {
  const words = [...new Set(names.flatMap(captionsOf).flatMap((caption) => caption.split(" ")))];
  const ids = tokenizeCaptions(tokenizer, words).data;
  const split = words.filter((_, i) => Number(ids[i * recipe.MAX_TOKENS + 2]) !== tokenizer.eosTokenId);
  if (split.length > 0) throw new Error(`more than one token: ${split.join(", ")}; raise VOCABULARY_SIZE`);
}

/**
 * Where the learning rate falls to zero: asked for once, kept in a file, so that a run that is cut goes on with it.
 *
 * The trainer's linear course falls from the end of the warm-up on; its rate is chosen so that it passes through the
 * recipe's where the fall begins.
 */
async function decayPhase(): Promise<{ rate: number; until: number } | undefined> {
  const file = join(output, "decay.json");
  const kept = await readFile(file, "utf8").catch(() => undefined);
  if (kept !== undefined) return JSON.parse(kept);
  if (flags.decay === undefined) return undefined;
  const { latestCheckpoint, readCheckpoint } = await import("../../src/training/checkpoint.js");
  const path = await latestCheckpoint(join(output, "checkpoints"));
  const from = path === undefined ? recipe.WARMUP_STEPS : (await readCheckpoint(path)).step;
  const until = from + Number(flags.decay);
  const rate = (recipe.LEARNING_RATE * (until - recipe.WARMUP_STEPS)) / (until - from);
  await writeFile(file, JSON.stringify({ rate, until, from }));
  return { rate, until };
}
