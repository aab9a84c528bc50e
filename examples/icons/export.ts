// Writes the embedded pipeline in diffusers' layout, float16: the mean of the weights at all checkpoints that a training kept.
// Usage: npx tsx examples/icons/export.ts DENOISER_FOLDER AUTOENCODER_FOLDER PIPELINE_FOLDER

import { cp, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { CLIPTokenizer } from "../../src/models/clip-tokenizer/clip-tokenizer.js";
import { readSafetensors, writeSafetensors } from "../../src/storage/index.js";
import "../../src/storage/node.js";
import { float32ToFloat16 } from "../../src/tensor/float16.js";
import { Tensor, zeros } from "../../src/tensor/tensor.js";
import { readCheckpoint } from "../../src/training/checkpoint.js";
import { trainingNames } from "./names.js";
import * as recipe from "./recipe.js";

const [from = "runs/embedded/denoiser", autoencoderFolder = "runs/embedded/vae", folder = "runs/embedded/pipeline"] =
  process.argv.slice(2);

const kept = (await readdir(join(from, "checkpoints"))).filter((name) => /^checkpoint-\d+\.safetensors$/.test(name));
if (kept.length === 0) throw new Error(`${from}: there is no checkpoint yet`);
const weights = new Map<string, Tensor<"float32">>();
for (const name of kept) {
  const { parameters } = await readCheckpoint(join(from, "checkpoints", name));
  for (const [key, { data, shape }] of parameters) {
    const sum = weights.get(key) ?? zeros(shape);
    for (let i = 0; i < data.length; i++) sum.data[i]! += data[i]! / kept.length;
    weights.set(key, sum);
  }
}
const part = (prefix: string) =>
  new Map(
    [...weights].filter(([name]) => name.startsWith(prefix)).map(([name, value]) => [name.slice(prefix.length), value]),
  );

await mkdir(folder, { recursive: true });
await cp(join(from, "tokenizer"), join(folder, "tokenizer"), { recursive: true });
const tokenizer = await CLIPTokenizer.fromPretrained(folder);
await writeModel("unet", "diffusion_pytorch_model", part("unet."), {
  _class_name: "UNet2DConditionModel",
  ...recipe.UNET_CONFIG,
});
await writeModel("text_encoder", "model", part("text_encoder."), {
  architectures: ["CLIPTextModel"],
  model_type: "clip_text_model",
  ...recipe.textEncoderConfig(tokenizer.vocabSize, tokenizer.eosTokenId),
});
const { tensors } = await readSafetensors(join(autoencoderFolder, "diffusion_pytorch_model.safetensors"));
const described = JSON.parse(await readFile(join(autoencoderFolder, "config.json"), "utf8"));
await writeModel("vae", "diffusion_pytorch_model", tensors as Map<string, Tensor<"float32">>, described);
await writeJson(join(folder, "scheduler", "scheduler_config.json"), {
  _class_name: "DDIMScheduler",
  ...recipe.SCHEDULER_CONFIG,
});
await writeJson(join(folder, "names.json"), trainingNames());
await writeJson(join(folder, "model_index.json"), {
  _class_name: "StableDiffusionPipeline",
  scheduler: ["diffusers", "DDIMScheduler"],
  text_encoder: ["transformers", "CLIPTextModel"],
  tokenizer: ["transformers", "CLIPTokenizer"],
  unet: ["diffusers", "UNet2DConditionModel"],
  vae: ["diffusers", "AutoencoderTiny"],
});
console.log(`${folder}: the mean of ${kept.sort().join(", ")}`);

async function writeModel(
  name: string,
  file: string,
  values: ReadonlyMap<string, Tensor<"float32">>,
  config: object,
): Promise<void> {
  await writeJson(join(folder, name, "config.json"), config);
  const half = [...values].map(
    ([key, { shape, data }]) => [key, new Tensor("float16", shape, float32ToFloat16(data))] as const,
  );
  await writeSafetensors(join(folder, name, `${file}.safetensors`), new Map(half), { format: "pt" });
}

async function writeJson(path: string, value: object): Promise<void> {
  await mkdir(join(path, ".."), { recursive: true });
  await writeFile(path, `${JSON.stringify(value, null, 2)}\n`);
}
