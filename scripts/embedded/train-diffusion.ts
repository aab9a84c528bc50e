// Trains the embedded model's UNet and text encoder from scratch on the noto icons, in the latents of its autoencoder.
// Goes on from the newest checkpoint when started again.
// Usage: npx tsx scripts/embedded/train-diffusion.ts OUTPUT_FOLDER AUTOENCODER_FOLDER

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { AutoencoderTiny } from "../../src/models/autoencoder-tiny/autoencoder-tiny.js";
import { CLIPTextModel } from "../../src/models/clip-text/clip-text-model.js";
import { CLIPTokenizer } from "../../src/models/clip-tokenizer/clip-tokenizer.js";
import { writeClipTokenizer } from "../../src/models/clip-tokenizer/write-clip-tokenizer.js";
import { readSafetensors, writeSafetensors } from "../../src/storage/index.js";
import "../../src/storage/node.js";
import { UNet2DConditionModel } from "../../src/models/unet-2d-condition/unet-2d-condition.js";
import "../../src/runtime/node.js";
import { createObjective } from "../../src/diffusion/index.js";
import { float32ToFloat16 } from "../../src/tensor/float16.js";
import { Generator } from "../../src/tensor/random.js";
import { Tensor } from "../../src/tensor/tensor.js";
import { ParameterAverage } from "../../src/training/average.js";
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
import { AdamW } from "../../src/training/optimizers/adamw.js";
import { Trainer } from "../../src/training/trainer.js";
import { WholeModel } from "../../src/training/whole-model.js";
import { trainClipVocabulary } from "./bpe-trainer.js";
import * as recipe from "./recipe.js";

const [output = "runs/embedded/diffusion", autoencoderFolder = "runs/embedded/vae"] = process.argv.slice(2);
const BATCH = 16;

const captions = Object.keys(ICON_STYLES).flatMap((style) => loadIconSet(style as IconStyle).names.map(captionOf));
const vocabulary = trainClipVocabulary(captions, { size: recipe.VOCABULARY_SIZE });
await writeClipTokenizer(join(output, "pipeline/tokenizer"), { ...vocabulary, maxLength: recipe.MAX_TOKENS });
const tokenizer = await CLIPTokenizer.fromPretrained(join(output, "pipeline"));

const names = recipe.trainingNames();
const rgb = await rasterizeIcons("noto", names, recipe.IMAGE_SIZE);
const vae = await AutoencoderTiny.fromPretrained(autoencoderFolder);
const { latents } = await encodeImages(vae, {
  size: names.length,
  imageSize: recipe.IMAGE_SIZE,
  image: async (index) => toModelInput(rgb, recipe.IMAGE_SIZE, [index]),
});
await vae.release();
// Latents of unit size on average, as the noise schedule expects.
const power = latents.data.reduce((sum, value) => sum + value * value, 0) / latents.size;
const scale = Math.round(1e4 / Math.sqrt(power)) / 1e4;
for (let i = 0; i < latents.data.length; i++) latents.data[i] = latents.data[i]! * scale;
console.log(`${names.length} icons, scaling factor ${scale}, ${tokenizer.vocabSize} tokens`);

const generator = new Generator(recipe.SEED);
const unet = UNet2DConditionModel.fromConfig(recipe.UNET_CONFIG, generator);
const textConfig = recipe.textEncoderConfig(tokenizer.vocabSize, tokenizer.eosTokenId);
const textEncoder = CLIPTextModel.fromConfig(textConfig, generator);
const trainable = await WholeModel.compile(
  { unet, textEncoder },
  { batchSize: BATCH, height: recipe.LATENT_SIZE, width: recipe.LATENT_SIZE, tokens: recipe.MAX_TOKENS },
);
const count = [...trainable.parameters.values()].reduce((sum, { size }) => sum + size, 0);
console.log(`${count} parameters`);

const conditioning = { inputIds: tokenizeCaptions(tokenizer, names.map(captionOf)) };
const empty = { inputIds: tokenizeCaptions(tokenizer, [""]) };
for (const [index, stageOptions] of recipe.STAGES.entries()) {
  const { until, total, schedule, learningRate, timestepSampling, timestepShift } = stageOptions;
  const stage = new AbortController();
  const trainer = new Trainer({
    trainable,
    batches: new DiffusionBatches(
      { latents, conditioning, empty },
      {
        batchSize: BATCH,
        captionDropout: 0.1,
        timestepSampling,
        timestepShift,
        objective: createObjective(recipe.SCHEDULER_CONFIG),
        generator,
      },
    ),
    optimizer: new AdamW({ lr: learningRate, weightDecay: 0.01 }),
    steps: total,
    output,
    schedule,
    warmupSteps: 200,
    maxGradientNorm: 1,
    average: new ParameterAverage(trainable.parameters, 0.999),
    checkpointEvery: 250,
    fingerprint: `embedded ${recipe.SEED}`,
    signal: stage.signal,
    onStep: async (report) => {
      if (report.step >= until) stage.abort();
      if (report.step % 25 === 0) {
        console.log(
          `step ${report.step} loss ${report.loss.toFixed(4)} norm ${report.gradientNorm.toFixed(2)} ` +
            `${report.stepsPerSecond.toFixed(2)} steps/s ${report.seconds.toFixed(0)} s`,
        );
      }
      if (report.step % 500 === 1) await exportPipeline();
    },
  });
  const from = await trainer.resume();
  if (from >= until && index < recipe.STAGES.length - 1) continue;
  console.log(`stage ${index + 1} from step ${from}`);
  await exportPipeline((await trainer.run()).parameters);
}
process.exit(0);

/** Writes the pipeline in diffusers' layout, float16, with the averaged weights of the newest checkpoint by default. */
async function exportPipeline(given?: ReadonlyMap<string, Tensor<"float32">>): Promise<void> {
  const folder = join(output, "pipeline");
  const weights = given ?? (await newestAverage());
  if (!weights) return;
  const half = (tensor: Tensor<"float32">) => new Tensor("float16", tensor.shape, float32ToFloat16(tensor.data));
  const part = (prefix: string) =>
    new Map(
      [...weights]
        .filter(([name]) => name.startsWith(prefix))
        .map(([name, value]) => [name.slice(prefix.length), half(value)]),
    );
  const { tensors } = await readSafetensors(join(autoencoderFolder, "diffusion_pytorch_model.safetensors"));
  const autoencoder = new Map([...tensors].map(([name, value]) => [name, half(value as Tensor<"float32">)]));
  await writeModel("unet", "diffusion_pytorch_model", part("unet."), {
    _class_name: "UNet2DConditionModel",
    ...recipe.UNET_CONFIG,
  });
  await writeModel("text_encoder", "model", part("text_encoder."), {
    architectures: ["CLIPTextModel"],
    model_type: "clip_text_model",
    ...textConfig,
  });
  await writeModel("vae", "diffusion_pytorch_model", autoencoder, {
    _class_name: "AutoencoderTiny",
    ...recipe.AUTOENCODER_CONFIG,
    scaling_factor: scale,
  });
  await writeJson(join(folder, "scheduler", "scheduler_config.json"), {
    _class_name: "DDIMScheduler",
    ...recipe.SCHEDULER_CONFIG,
  });
  await writeJson(join(folder, "model_index.json"), {
    _class_name: "StableDiffusionPipeline",
    scheduler: ["diffusers", "DDIMScheduler"],
    text_encoder: ["transformers", "CLIPTextModel"],
    tokenizer: ["transformers", "CLIPTokenizer"],
    unet: ["diffusers", "UNet2DConditionModel"],
    vae: ["diffusers", "AutoencoderTiny"],
  });

  async function writeModel(name: string, file: string, values: Map<string, Tensor>, config: object): Promise<void> {
    await writeJson(join(folder, name, "config.json"), config);
    await writeSafetensors(join(folder, name, `${file}.safetensors`), values, { format: "pt" });
  }
}

async function newestAverage(): Promise<ReadonlyMap<string, Tensor<"float32">> | undefined> {
  const { latestCheckpoint, readCheckpoint } = await import("../../src/training/checkpoint.js");
  const path = await latestCheckpoint(join(output, "checkpoints"));
  return path === undefined ? undefined : (await readCheckpoint(path)).average;
}

async function writeJson(path: string, value: object): Promise<void> {
  await mkdir(join(path, ".."), { recursive: true });
  await writeFile(path, `${JSON.stringify(value, null, 2)}\n`);
}
