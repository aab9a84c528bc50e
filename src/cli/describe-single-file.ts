// What a checkpoint in one file holds (v1-5-pruned.safetensors and its kind), in lines.

import { type FlowLayout, flowLayoutOf } from "../models/single-file/flow-layout.js";
import { describeWeights, judgeModel, judgePipeline, type LoadingChoice } from "./describe-model.js";
import { formatTable } from "./format.js";
import { familyOf } from "./model-family.js";
import type { TensorFile } from "./open-tensor-file.js";

/** Parts by the start of their tensors' names. */
const PARTS = [
  ["diffusion model", "model.diffusion_model."],
  ["autoencoder", "first_stage_model."],
  ["text encoder", "cond_stage_model."],
  ["text encoder 1", "conditioner.embedders.0."],
  ["text encoder 2", "conditioner.embedders.1."],
  ["autoencoder", "vae."],
  ["text encoder CLIP L", "text_encoders.clip_l."],
  ["text encoder CLIP G", "text_encoders.clip_g."],
  ["text encoder T5", "text_encoders.t5xxl."],
  ["other text encoders", "text_encoders."],
  ["running average", "model_ema."],
] as const;

const MODEL = "model.diffusion_model.";
const INPUT_CHANNELS = new Map([
  [8, "takes an image beside the latents (instruct-pix2pix)"],
  [9, "takes a masked image beside the latents (inpainting)"],
]);

/** Whether tensors are a whole model's in the original code's names. */
export const isSingleFile = ({ entries }: TensorFile): boolean =>
  [...entries.keys()].some((name) => name.startsWith(MODEL)) || flowLayoutOf([...entries.keys()]) !== undefined;

/** Family, parts with their parameters and sizes, and what loading says. */
export async function describeSingleFile(
  { path, format, entries }: TensorFile,
  options: LoadingChoice = {},
): Promise<string[]> {
  const rows = [["part", "parameters, size, type"]];
  const rest = new Map(entries);
  for (const [part, prefix] of PARTS) {
    const own = [...rest].filter(([name]) => name.startsWith(prefix));
    for (const [name] of own) rest.delete(name);
    if (own.length > 0) rows.push([part, describeWeights(own.map(([, entry]) => entry))]);
  }
  const flow = flowLayoutOf([...entries.keys()]);
  if (rest.size > 0)
    rows.push([
      flow?.parts.get("transformer")?.prefix === "" ? "transformer" : "others",
      describeWeights([...rest.values()]),
    ]);
  const channels = entries.get(`${MODEL}input_blocks.0.0.weight`)?.shape[1];
  const note = channels === undefined ? undefined : INPUT_CHANNELS.get(channels);
  return [
    `${path}: checkpoint in one file, the original code's names; ${format}`,
    `  family ${flow?.words ?? familyOfEntries(entries)}`,
    ...(note ? [`  ${note}`] : []),
    ...formatTable(rows, 2).map((line) => `  ${line}`),
    ...(flow && options.config === undefined
      ? await judgeAlone(path, flow, options)
      : await judgePipeline(path, options)
    ).map((line) => `  ${line}`),
  ];
}

/** What a file of a transformer is without the folder that has the rest. */
async function judgeAlone(path: string, { family, words, lacks }: FlowLayout, options: LoadingChoice) {
  const judged = await judgeModel(path, family, options);
  const missing = ["tokenizers", "scheduler", ...lacks].join(", ");
  return [
    ...judged.map((line) => line.replace(/^fera can load it$/, "fera can load its transformer")),
    `for images and training, give --model-config: the folder or hub id of a ${words} pipeline, for its ${missing}`,
  ];
}

function familyOfEntries(entries: TensorFile["entries"]): string {
  const names = [...entries.keys()];
  const crossing = names.find((name) => name.startsWith(MODEL) && name.endsWith("attn2.to_k.weight"));
  if (crossing !== undefined) return familyOf(entries.get(crossing)!.shape[1]) ?? "not known";
  return "not known";
}
