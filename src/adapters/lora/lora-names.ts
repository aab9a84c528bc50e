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
 * @param layersPerBlock - Resnets per down block, which the original numbering counts through. Default 2.
 * @throws {ConfigError} If the original code has no such layer.
 */
export function kohyaName(path: string, naming: KohyaNaming, layersPerBlock = SDXL_LAYERS_PER_BLOCK): string {
  const named = naming === "original" ? originalPath(path, layersPerBlock) : path;
  return `lora_unet_${named.replaceAll(".", "_")}`;
}

const EMBEDDINGS = new Map([
  ["time_embedding.linear_1", "time_embed.0"],
  ["time_embedding.linear_2", "time_embed.2"],
  ["add_embedding.linear_1", "label_emb.0.0"],
  ["add_embedding.linear_2", "label_emb.0.2"],
]);
const BLOCK = /^(?:(down|up)_blocks\.(\d+)|mid_block)\.(resnets|attentions)\.(\d+)\.(.+)$/;

/**
 * A diffusers UNet's path in the original code, where blocks are numbered through: a down block i has L layers and a
 * downsampler behind the stem, so layer j is `input_blocks.(i(L+1) + j + 1)`; an up block has L + 1 layers, so layer j is
 * `output_blocks.(i(L+1) + j)`. Each holds a resnet at 0 and a transformer at 1; the middle is resnet, transformer, resnet.
 */
function originalPath(path: string, layersPerBlock: number): string {
  const embedding = EMBEDDINGS.get(path);
  if (embedding) return embedding;
  const match = BLOCK.exec(path);
  if (!match)
    throw new ConfigError(`${path}: kohya's format has no name for this layer of a Stable Diffusion XL UNet.`);
  const [, side, block, kind, index, rest] = match as unknown as [string, string?, string?, string?, string?, string?];
  const isResnet = kind === "resnets";
  const inner = isResnet ? rest!.replace(/^time_emb_proj$/, "emb_layers.1") : rest!;
  if (side === undefined) return `middle_block.${isResnet ? 2 * Number(index) : 1}.${inner}`;
  const number = Number(block) * (layersPerBlock + 1) + Number(index);
  const place = side === "down" ? `input_blocks.${number + 1}` : `output_blocks.${number}`;
  return `${place}.${isResnet ? 0 : 1}.${inner}`;
}
