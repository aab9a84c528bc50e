// Which layer of a model a LoRA file means: names with dots, flattened names, the original code's numbering, and counts.

import type { TargetLayer } from "../target-layers.js";
import { originalFlowModules } from "./flow-layers.js";
import { originalNames } from "./lora-names.js";

/** Finds a layer's module path by the name that a file has for it. */
export type LayerFinder = (name: string) => string | undefined;

const flat = (name: string): string => name.replaceAll(".", "_");

/** Finds a denoiser's layers under their paths or the original code's, with dots or with underscores in their place. */
export function findByName(layers: readonly TargetLayer[]): LayerFinder {
  const paths = new Map<string, string>();
  // diffusers' own names go first where both have one.
  for (const [path, original] of originalNames(layers)) paths.set(flat(original), path);
  for (const { path } of layers) paths.set(flat(path), path);
  const flowModule = originalFlowModules(layers);
  return (name) => {
    const module = flowModule(name);
    // Several in one, and those whose rows stand in another order, are no name alone: see flow-layers.ts.
    return module?.parts.length === 1 && !module.swapped ? module.parts[0] : paths.get(flat(name));
  };
}

const TEXT_LAYER = /^(?:text_model_)?encoder_layers_(\d+)_(self_attn|mlp)_(\w+)$/;
/** Modules of a layer of CLIP's text model, with the names that diffusers' attention processors had for them. */
const TEXT_MODULES: Readonly<Record<string, string>> = {
  ...{ q_proj: "q_proj", k_proj: "k_proj", v_proj: "v_proj", out_proj: "out_proj", fc1: "fc1", fc2: "fc2" },
  ...{ to_q: "q_proj", to_k: "k_proj", to_v: "v_proj", to_out: "out_proj" },
};

/** The path of a layer of CLIP's text model. */
export const textLayerPath: LayerFinder = (name) => {
  const plain = flat(name);
  if (plain === "text_projection") return plain;
  const [, layer, block, given = ""] = TEXT_LAYER.exec(plain) ?? [];
  const module = Object.hasOwn(TEXT_MODULES, given) ? TEXT_MODULES[given] : undefined;
  return layer && module && `text_model.encoder.layers.${layer}.${block}.${module}`;
};

/** Module classes that cloneofsimo's programs adapt, and the layers in them. */
const CLASSES: Readonly<Record<string, RegExp>> = {
  CrossAttention: /\.attn\d\.to_(q|k|v|out\.0)$/,
  Attention: /\.attn\d\.to_(q|k|v|out\.0)$/,
  GEGLU: /\.ff\.net\.0\.proj$/,
  ResnetBlock2D: /\.resnets\.\d+\.(conv1|time_emb_proj|conv2|conv_shortcut)$/,
};
export const COUNTED_CLASSES = Object.keys(CLASSES);
/** Of all files; those of the extended kind have {@link CLASSES} whole. */
const DEFAULT_CLASSES = ["CrossAttention", "Attention", "GEGLU"];
/** Of cloneofsimo's text encoders. */
export const COUNTED_TEXT_CLASS = "CLIPAttention";

/**
 * Finds a UNet's layers by their number, as cloneofsimo's programs count: in the order in which diffusers 0.11 registered
 * modules. Blocks down, up, middle; in a block attentions, then resnets; in a transformer block attn1, ff, attn2.
 *
 * @param classes - Those that were adapted; by default the ones that give as many layers as the file has.
 * @param count - Layers in the file.
 * @see https://github.com/cloneofsimo/lora
 */
export function findByNumber(
  layers: readonly TargetLayer[],
  classes: readonly string[] | undefined,
  count: number,
): LayerFinder {
  const inClasses = (names: readonly string[]) =>
    layers.map(({ path }) => path).filter((path) => names.some((name) => CLASSES[name]?.test(path)));
  let paths = inClasses(classes ?? DEFAULT_CLASSES);
  if (!classes && paths.length !== count) paths = inClasses(COUNTED_CLASSES);
  if (paths.length !== count) return () => undefined;
  const sorted = paths
    .map((path) => ({ path, place: placeOf(path) }))
    .sort((a, b) => a.place.reduce((order, part, i) => order || part - b.place[i]!, 0));
  return (name) => sorted[Number(name)]?.path;
}

const BLOCK =
  /^(down_blocks|up_blocks|mid_block)(?:\.(\d+))?\.(attentions|resnets)\.(\d+)\.(?:transformer_blocks\.(\d+)\.)?(.+)$/;
const SIDES = ["down_blocks", "up_blocks", "mid_block"];
const MODULES = [
  ...["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj"],
  ...["attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"],
  ...["conv1", "time_emb_proj", "conv2", "conv_shortcut"],
];

/** Side, block, kind, number in the block, transformer block, module. */
function placeOf(path: string): number[] {
  const [, side = "", block = "0", kind, index = "0", depth = "0", module = ""] = BLOCK.exec(path) ?? [];
  const kindNumber = kind === "attentions" ? 0 : 1;
  return [SIDES.indexOf(side), Number(block), kindNumber, Number(index), Number(depth), MODULES.indexOf(module)];
}

/** The path of a layer of CLIP's text model by its number: in each layer's attention k, v, q, out. */
export const textLayerByNumber: LayerFinder = (name) => {
  const number = Number(name);
  const module = ["k_proj", "v_proj", "q_proj", "out_proj"][number % 4];
  return `text_model.encoder.layers.${Math.floor(number / 4)}.self_attn.${module}`;
};
