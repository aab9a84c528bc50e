// The tensor names of Stable Diffusion's single-file checkpoints beside diffusers' names, both ways. A table of modules
// per model; what a tensor is called inside its module is the same in both, except where the table goes deeper.
// Source of the old names: the modules of CompVis's latent-diffusion and stable-diffusion, and of OpenCLIP.

import { FormatError } from "../../errors.js";

/** A module's name in the checkpoint, without the model's prefix, and in diffusers. */
export type ModulePair = readonly [checkpoint: string, diffusers: string];

/** What the UNet's names depend on. */
export interface UNetNaming {
  /** Per resolution, from the outermost in. */
  blocks: readonly { layers: number }[];
  down_block_types: readonly string[];
  up_block_types: readonly string[];
}

/** What the autoencoder's names depend on. */
export interface AutoencoderNaming {
  /** Number of resolutions. */
  levels: number;
  layersPerBlock: number;
}

const RESNET: readonly ModulePair[] = [
  ["in_layers.0", "norm1"],
  ["in_layers.2", "conv1"],
  ["emb_layers.1", "time_emb_proj"],
  ["out_layers.0", "norm2"],
  ["out_layers.3", "conv2"],
  ["skip_connection", "conv_shortcut"],
];

const UNET_ENDS: readonly ModulePair[] = [
  ["time_embed.0", "time_embedding.linear_1"],
  ["time_embed.2", "time_embedding.linear_2"],
  ["label_emb.0.0", "add_embedding.linear_1"],
  ["label_emb.0.2", "add_embedding.linear_2"],
  ["input_blocks.0.0", "conv_in"],
  ["middle_block.1", "mid_block.attentions.0"],
  ["out.0", "conv_norm_out"],
  ["out.2", "conv_out"],
];

const VAE_ENDS: readonly ModulePair[] = ["encoder", "decoder"].flatMap((half): ModulePair[] => [
  [`${half}.conv_in`, `${half}.conv_in`],
  [`${half}.norm_out`, `${half}.conv_norm_out`],
  [`${half}.conv_out`, `${half}.conv_out`],
  [`${half}.mid.attn_1.norm`, `${half}.mid_block.attentions.0.group_norm`],
  [`${half}.mid.attn_1.q`, `${half}.mid_block.attentions.0.to_q`],
  [`${half}.mid.attn_1.k`, `${half}.mid_block.attentions.0.to_k`],
  [`${half}.mid.attn_1.v`, `${half}.mid_block.attentions.0.to_v`],
  [`${half}.mid.attn_1.proj_out`, `${half}.mid_block.attentions.0.to_out.0`],
]);

const OPEN_CLIP_ENDS: readonly ModulePair[] = [
  ["token_embedding", "text_model.embeddings.token_embedding"],
  ["positional_embedding", "text_model.embeddings.position_embedding.weight"],
  ["ln_final", "text_model.final_layer_norm"],
  ["text_projection", "text_projection.weight"],
];

const OPEN_CLIP_LAYER: readonly ModulePair[] = [
  ["ln_1", "layer_norm1"],
  ["ln_2", "layer_norm2"],
  ["mlp.c_fc", "mlp.fc1"],
  ["mlp.c_proj", "mlp.fc2"],
  ["attn.out_proj", "self_attn.out_proj"],
];

/** Modules of `model.diffusion_model`: levels counted as one row of blocks, samplers as blocks of their own. */
export function unetModules(naming: UNetNaming): ModulePair[] {
  const { blocks, down_block_types: downTypes, up_block_types: upTypes } = naming;
  const pairs = [...UNET_ENDS, ...resnet("middle_block.0", "mid_block.resnets.0")];
  pairs.push(...resnet("middle_block.2", "mid_block.resnets.1"));
  const last = blocks.length - 1;
  let position = 1;
  blocks.forEach(({ layers }, i) => {
    for (let layer = 0; layer < layers; layer++, position++) {
      pairs.push(...resnet(`input_blocks.${position}.0`, `down_blocks.${i}.resnets.${layer}`));
      if (downTypes[i]?.startsWith("CrossAttn")) {
        pairs.push([`input_blocks.${position}.1`, `down_blocks.${i}.attentions.${layer}`]);
      }
    }
    if (i < last) pairs.push([`input_blocks.${position++}.0.op`, `down_blocks.${i}.downsamplers.0.conv`]);
  });
  position = 0;
  [...blocks].reverse().forEach(({ layers }, i) => {
    const crosses = upTypes[i]?.startsWith("CrossAttn");
    for (let layer = 0; layer <= layers; layer++, position++) {
      pairs.push(...resnet(`output_blocks.${position}.0`, `up_blocks.${i}.resnets.${layer}`));
      if (crosses) pairs.push([`output_blocks.${position}.1`, `up_blocks.${i}.attentions.${layer}`]);
      if (layer === layers && i < last) {
        pairs.push([`output_blocks.${position}.${crosses ? 2 : 1}.conv`, `up_blocks.${i}.upsamplers.0.conv`]);
      }
    }
  });
  return pairs;
}

/** Modules of `first_stage_model`; the decoder's levels are counted from the image inwards there. */
export function autoencoderModules({ levels, layersPerBlock }: AutoencoderNaming): ModulePair[] {
  const pairs: ModulePair[] = [["quant_conv", "quant_conv"], ["post_quant_conv", "post_quant_conv"], ...VAE_ENDS];
  const add = (old: string, name: string) => pairs.push([old, name], [`${old}.nin_shortcut`, `${name}.conv_shortcut`]);
  for (const half of ["encoder", "decoder"]) {
    add(`${half}.mid.block_1`, `${half}.mid_block.resnets.0`);
    add(`${half}.mid.block_2`, `${half}.mid_block.resnets.1`);
  }
  for (let level = 0; level < levels; level++) {
    const down = `encoder.down_blocks.${level}`;
    for (let j = 0; j < layersPerBlock; j++) add(`encoder.down.${level}.block.${j}`, `${down}.resnets.${j}`);
    pairs.push([`encoder.down.${level}.downsample.conv`, `${down}.downsamplers.0.conv`]);
    const up = `decoder.up_blocks.${levels - 1 - level}`;
    for (let j = 0; j <= layersPerBlock; j++) add(`decoder.up.${level}.block.${j}`, `${up}.resnets.${j}`);
    pairs.push([`decoder.up.${level}.upsample.conv`, `${up}.upsamplers.0.conv`]);
  }
  return pairs;
}

/** Modules of CLIP's text model as transformers names them in both: Stable Diffusion 1.x, SDXL's first encoder. */
export const CLIP_MODULES: readonly ModulePair[] = [["text_model", "text_model"]];

/**
 * Modules of an OpenCLIP text model: Stable Diffusion 2.x, SDXL's second encoder. The joined projections
 * `attn.in_proj_weight` and `attn.in_proj_bias` are not in it: they are three tensors in transformers.
 */
export function openClipModules(layers: number): ModulePair[] {
  const pairs = [...OPEN_CLIP_ENDS];
  for (let i = 0; i < layers; i++) {
    for (const [old, name] of OPEN_CLIP_LAYER) {
      pairs.push([`transformer.resblocks.${i}.${old}`, `text_model.encoder.layers.${i}.${name}`]);
    }
  }
  return pairs;
}

/** A table of modules, both ways. */
export class NameTable {
  readonly #forward: ReadonlyMap<string, string>;
  readonly #backward: ReadonlyMap<string, string>;

  /** @throws {FormatError} If a name stands twice on one side. */
  constructor(pairs: readonly ModulePair[]) {
    this.#forward = new Map(pairs);
    this.#backward = new Map(pairs.map(([old, name]) => [name, old]));
    if (this.#forward.size !== pairs.length || this.#backward.size !== pairs.length) {
      throw new FormatError("table of names", "a module stands in it twice.");
    }
  }

  /** diffusers' name of a checkpoint's tensor; undefined where the table has no module of it. */
  toDiffusers(name: string): string | undefined {
    return rename(name, this.#forward);
  }

  /** The checkpoint's name of a tensor in diffusers' naming. */
  toCheckpoint(name: string): string | undefined {
    return rename(name, this.#backward);
  }
}

function resnet(old: string, name: string): ModulePair[] {
  return RESNET.map(([from, to]) => [`${old}.${from}`, `${name}.${to}`]);
}

/** The deepest module that the table knows decides. */
function rename(name: string, table: ReadonlyMap<string, string>): string | undefined {
  for (let end = name.length; end > 0; end = name.lastIndexOf(".", end - 1)) {
    const module = table.get(name.slice(0, end));
    if (module !== undefined) return module + name.slice(end);
  }
  return undefined;
}
