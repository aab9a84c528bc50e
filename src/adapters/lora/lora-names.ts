// What other programs call the layers of a UNet in files of plain LoRA.

import { ConfigError } from "../../errors.js";
import type { TargetLayer } from "../target-layers.js";

/**
 * How kohya's scripts name a UNet's layers: as diffusers does (Stable Diffusion 1 and 2), or as the original code does
 * (`input_blocks`, `middle_block`, `output_blocks`: XL).
 */
export type KohyaNaming = "diffusers" | "original";

/** Text features of SDXL's UNet. */
const SDXL_TEXT_FEATURES = 2048;
/** Resnets per down block in every published Stable Diffusion XL. */
const SDXL_LAYERS_PER_BLOCK = 2;

/**
 * The naming that kohya's scripts would give these layers. SDXL is known by its text features, by its added embedding,
 * or by transformers of more than one block, which Stable Diffusion 1 and 2 have nowhere.
 */
export function kohyaNamingOf(layers: readonly TargetLayer[]): KohyaNaming {
  const isXl = layers.some(
    ({ path, inFeatures }) =>
      path.startsWith("add_embedding.") ||
      /\.transformer_blocks\.[1-9]/.test(path) ||
      (/\.attn2\.to_[kv]$/.test(path) && inFeatures === SDXL_TEXT_FEATURES),
  );
  return isXl ? "original" : "diffusers";
}

/**
 * `lora_unet_` and the layer's path with underscores, e.g.
 * `lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q`.
 *
 * @param blocks - What the original numbering counts through: the model's layers, or resnets per down block. Default 2.
 * @throws {ConfigError} If the original code has no such layer.
 */
export function kohyaName(
  path: string,
  naming: KohyaNaming,
  blocks: readonly TargetLayer[] | number = SDXL_LAYERS_PER_BLOCK,
): string {
  const named = naming === "original" ? originalName(path, blockSizes(blocks)) : path;
  if (named !== undefined) return `lora_unet_${named.replaceAll(".", "_")}`;
  throw new ConfigError(`${path}: kohya's format has no name for this layer of a Stable Diffusion XL UNet.`);
}

/** The original code's names of a UNet's layers, by path; layers that it has no name for are left out. */
export function originalNames(layers: readonly TargetLayer[]): Map<string, string> {
  const sizes = blockSizes(layers);
  const names = new Map<string, string>();
  for (const { path } of layers) {
    const name = originalName(path, sizes);
    if (name !== undefined) names.set(path, name);
  }
  return names;
}

/** Whether these are paths of a UNet's layers, with dots as in diffusers. */
export const isUNet = (layers: readonly TargetLayer[]): boolean => layers.every(({ path }) => UNET_MODULE.test(path));

const UNET_MODULE =
  /^(down_blocks|mid_block|up_blocks|conv_in|conv_out|time_embedding|add_embedding|class_embedding)\b/;

const ENDS = new Map([
  ["conv_in", "input_blocks.0.0"],
  ["conv_out", "out.2"],
  ["time_embedding.linear_1", "time_embed.0"],
  ["time_embedding.linear_2", "time_embed.2"],
  ["add_embedding.linear_1", "label_emb.0.0"],
  ["add_embedding.linear_2", "label_emb.0.2"],
]);
const RESNET = new Map([
  ["conv1", "in_layers.2"],
  ["time_emb_proj", "emb_layers.1"],
  ["conv2", "out_layers.3"],
  ["conv_shortcut", "skip_connection"],
]);
const BLOCK = /^(?:(down|up)_blocks\.(\d+)|mid_block)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)$/;

/** How many resnets each block has, by its side and number. */
interface BlockSizes {
  resnets(side: string, block: number): number;
  /** Whether an up block has attentions. */
  attends(block: number): boolean;
}

function blockSizes(blocks: readonly TargetLayer[] | number): BlockSizes {
  if (typeof blocks === "number") {
    return { resnets: (side) => (side === "down" ? blocks : blocks + 1), attends: () => true };
  }
  const counts = new Map<string, number>();
  const attending = new Set<number>();
  for (const { path } of blocks) {
    const [, side, block, kind, index] = BLOCK.exec(path) ?? [];
    const key = `${side} ${block}`;
    if (kind === "resnets") counts.set(key, Math.max(counts.get(key) ?? 0, Number(index) + 1));
    if (kind === "attentions" && side === "up") attending.add(Number(block));
  }
  return {
    resnets: (side, block) => counts.get(`${side} ${block}`) ?? 0,
    attends: (block) => attending.has(block),
  };
}

/**
 * A diffusers UNet's path in the original code, where blocks are numbered through: a down block has its resnets and a
 * downsampler behind the stem, which is `input_blocks.0`; an up block its resnets, the upsampler being in the last one's
 * place. Each place holds a resnet at 0 and a transformer at 1; the middle is resnet, transformer, resnet.
 */
function originalName(path: string, { resnets, attends }: BlockSizes): string | undefined {
  const end = ENDS.get(path);
  if (end) return end;
  const match = BLOCK.exec(path);
  if (!match) return undefined;
  const [, side, blockText, kind, index, rest] = match as unknown as [string, string?, ...string[]];
  const inner = kind === "resnets" ? RESNET.get(rest!) : rest;
  if (inner === undefined) return undefined;
  if (side === undefined) return `middle_block.${kind === "resnets" ? 2 * Number(index) : 1}.${inner}`;
  const block = Number(blockText);
  const isDown = side === "down";
  let number = isDown ? 1 : 0;
  for (let before = 0; before < block; before++) number += resnets(side, before) + (isDown ? 1 : 0);
  if (kind === "downsamplers") return `input_blocks.${number + resnets(side, block)}.0.op`;
  if (kind === "upsamplers") {
    return `output_blocks.${number + resnets(side, block) - 1}.${attends(block) ? 2 : 1}.${inner}`;
  }
  return `${isDown ? "input" : "output"}_blocks.${number + Number(index)}.${kind === "resnets" ? 0 : 1}.${inner}`;
}
