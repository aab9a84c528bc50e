// What a checkpoint in one file holds (v1-5-pruned.safetensors and its kind), in lines.

import { describeWeights, judgePipeline, type LoadingChoice } from "./describe-model.js";
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
  ["text encoders", "text_encoders."],
  ["running average", "model_ema."],
] as const;

const MODEL = "model.diffusion_model.";
const INPUT_CHANNELS = new Map([
  [8, "takes an image beside the latents (instruct-pix2pix)"],
  [9, "takes a masked image beside the latents (inpainting)"],
]);

/** Whether tensors are a whole model's in the original code's names. */
export const isSingleFile = ({ entries }: TensorFile): boolean =>
  [...entries.keys()].some((name) => name.startsWith(MODEL));

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
  if (rest.size > 0) rows.push(["others", describeWeights([...rest.values()])]);
  const channels = entries.get(`${MODEL}input_blocks.0.0.weight`)?.shape[1];
  const note = channels === undefined ? undefined : INPUT_CHANNELS.get(channels);
  return [
    `${path}: checkpoint in one file, the original code's names; ${format}`,
    `  family ${familyOfEntries(entries)}`,
    ...(note ? [`  ${note}`] : []),
    ...formatTable(rows, 2).map((line) => `  ${line}`),
    ...(await judgePipeline(path, options)).map((line) => `  ${line}`),
  ];
}

function familyOfEntries(entries: TensorFile["entries"]): string {
  const names = [...entries.keys()];
  const crossing = names.find((name) => name.startsWith(MODEL) && name.endsWith("attn2.to_k.weight"));
  if (crossing !== undefined) return familyOf(entries.get(crossing)!.shape[1]) ?? "not known";
  if (names.some((name) => name.startsWith(`${MODEL}joint_blocks.`))) return "Stable Diffusion 3";
  if (names.some((name) => name.startsWith(`${MODEL}double_blocks.`))) return "Flux";
  return "not known";
}
