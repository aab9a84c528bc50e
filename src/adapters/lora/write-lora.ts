// A LoRA's tensors and metadata in the names of other programs: kohya, diffusers, PEFT, ComfyUI.

import { ConfigError, FormatError } from "../../errors.js";
import { encodeSafetensors } from "../../storage/safetensors.js";
import { writeFileAt } from "../../storage/storage.js";
import { encodeTorch } from "../../storage/torch.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import { DIFFUSERS_WEIGHTS, writeAdapterFolder } from "../adapter-folder.js";
import { scaled } from "../float-state.js";
import type { AdapterPart, TextEncoderName } from "../loaded-adapter.js";
import type { TargetLayer } from "../target-layers.js";
import type { FileLayer } from "./file-layer.js";
import { fuseFlowLayers } from "./flow-layers.js";
import type { LoRAConfig } from "./lora-config.js";
import { isUNet, type KohyaNaming, kohyaName, kohyaNamingOf } from "./lora-names.js";
import { LORA_CONFIG_KEY } from "./read-lora.js";

/**
 * - `kohya`: `lora_unet_….lora_down.weight`, `.lora_up.weight`, `.alpha`; ComfyUI, A1111, kohya's scripts and diffusers
 *   read it. Of flow transformers the layers are the original code's, which needs the model's layers.
 * - `diffusers`: `unet.….lora_A.weight`, `transformer.….lora_A.weight`; what `load_lora_weights` calls its own, and
 *   ai-toolkit for FLUX.1 and Stable Diffusion 3.
 * - `comfyui`: `diffusion_model.….lora_A.weight` with the original code's layers; of flow transformers only.
 * - `peft`: `base_model.model.….lora_A.weight`, beside an `adapter_config.json`.
 */
export type LoraFileNames = "kohya" | "diffusers" | "peft" | "comfyui";

/** How layers are called. */
export interface LoraNameOptions {
  /** Only for `kohya`; by default what the layers tell, see `kohyaNamingOf`. */
  naming?: KohyaNaming | undefined;
  /**
   * All layers of the model. kohya's names of SDXL count through them, or through its `layers_per_block`, by default 2; the
   * original code's names of flow transformers need them.
   */
  blocks?: readonly TargetLayer[] | number | undefined;
}

/** {@link LoraNameOptions}, and what else the file shall hold. */
export interface LoraFileOptions extends LoraNameOptions {
  /** Parts for text encoders. */
  textEncoders?: ReadonlyMap<TextEncoderName, AdapterPart<LoRAConfig>> | undefined;
  /** More strings for the header. */
  metadata?: Readonly<Record<string, string>> | undefined;
}

/**
 * Writes a LoRA: in PEFT's names into a folder; otherwise into one file, which a folder gets under diffusers' name.
 *
 * @param path - A `.pt` file keeps no metadata.
 * @throws {ConfigError} If kohya has no name for a layer, or there are text encoders in PEFT's folder, which is for one
 *   model.
 * @throws {FormatError} If two layers would get the same name, or the file cannot be written.
 */
export async function writeLora(
  path: string,
  part: AdapterPart<LoRAConfig>,
  names: LoraFileNames,
  options: LoraFileOptions = {},
): Promise<void> {
  if (names === "peft") {
    if (options.textEncoders?.size) {
      throw new ConfigError(`${path}: PEFT's folder is for one model; it cannot also hold layers of text encoders.`);
    }
    const bytes = encodeSafetensors(
      diffusersTensors(part, "base_model.model.", () => 1),
      metadataOf(part, options),
    );
    return writeAdapterFolder(path, bytes, peftConfigOf(part));
  }
  if (/\.(pt|pth)$/i.test(path)) return writeFileAt(path, encodeTorch(tensorsOf(part, names, path, options), path));
  const bytes = encodeLora(part, names, path, options);
  if (/\.safetensors$/i.test(path)) return writeFileAt(path, bytes);
  return writeFileAt(`${path}/${DIFFUSERS_WEIGHTS}`, bytes, { makeFolder: true });
}

/**
 * A LoRA as the bytes of one `.safetensors` file.
 *
 * @param source - Names it in messages.
 * @throws {ConfigError} If kohya has no name for a layer.
 * @throws {FormatError} If two layers would get the same name.
 */
export function encodeLora(
  part: AdapterPart<LoRAConfig>,
  names: Exclude<LoraFileNames, "peft">,
  source: string,
  options: LoraFileOptions = {},
): Uint8Array<ArrayBuffer> {
  const tensors = tensorsOf(part, names, source, options);
  const metadata = metadataOf(part, options);
  if (names !== "kohya") return encodeSafetensors(tensors, metadata);
  const { rank, alpha } = part.config;
  const says = { ss_network_module: "networks.lora", ss_network_dim: `${rank}`, ss_network_alpha: `${alpha}` };
  return encodeSafetensors(tensors, { ...metadata, ...says });
}

function tensorsOf(
  part: AdapterPart<LoRAConfig>,
  names: Exclude<LoraFileNames, "peft">,
  source: string,
  { textEncoders = new Map(), ...options }: LoraFileOptions,
): Map<string, Tensor> {
  if (names === "comfyui") return comfyTensors(part, textEncoders, source, options);
  return names === "kohya" ? kohyaTensors(part, textEncoders, source, options) : diffusersFile(part, textEncoders);
}

const metadataOf = ({ config }: AdapterPart<LoRAConfig>, { metadata }: LoraFileOptions): Record<string, string> => ({
  format: "pt",
  [LORA_CONFIG_KEY]: JSON.stringify(config),
  ...metadata,
});

/**
 * The names for a file whose user has chosen none: kohya's, because ComfyUI, A1111, kohya's scripts and diffusers all read
 * them, each layer with its own alpha; diffusers' for models that kohya's scripts have no names for.
 */
export const defaultLoraNames = (layers: readonly TargetLayer[]): "kohya" | "diffusers" =>
  isUNet(layers) ? "kohya" : "diffusers";

/** `PREFIX` and the path, `lora_A` and `lora_B`. @param factorOf - What up is multiplied by. */
function diffusersTensors(
  { state, layers }: AdapterPart<LoRAConfig>,
  prefix: string,
  factorOf: (path: string) => number,
): Map<string, Tensor> {
  const tensors = new Map<string, Tensor>();
  for (const { path } of layers) {
    const { down, up, magnitude } = matrices(state, path);
    const scaledUp = scaled(up, factorOf(path));
    tensors.set(`${prefix}${path}.lora_A.weight`, down).set(`${prefix}${path}.lora_B.weight`, scaledUp);
    if (magnitude) tensors.set(`${prefix}${path}.lora_magnitude_vector`, perOutput(path, magnitude));
  }
  return tensors;
}

/** Without a configuration beside it, every program scales diffusers' names by 1: the scale goes into one matrix. */
function diffusersFile(part: AdapterPart<LoRAConfig>, textEncoders: NonNullable<LoraFileOptions["textEncoders"]>) {
  const components = [[isUNet(part.layers) ? "unet" : "transformer", part] as const, ...textEncoders];
  const all = components.map(([name, own]) => diffusersTensors(own, `${name}.`, (path) => own.config.scaleOf(path)));
  return new Map(all.flatMap((tensors) => [...tensors]));
}

/** `diffusion_model.`, the original code's path, `lora_A` and `lora_B`, with the scale in the latter. */
function comfyTensors(
  part: AdapterPart<LoRAConfig>,
  textEncoders: NonNullable<LoraFileOptions["textEncoders"]>,
  source: string,
  { blocks }: LoraNameOptions,
): Map<string, Tensor> {
  if (isUNet(part.layers)) {
    throw new ConfigError(
      `${source}: ComfyUI reads a UNet's LoRA in kohya's names; its own are for flow transformers.`,
    );
  }
  if (textEncoders.size > 0) {
    throw new ConfigError(
      `${source}: layers of text encoders are written in kohya's or diffusers' names, not ComfyUI's.`,
    );
  }
  const tensors = new Map<string, Tensor>();
  for (const { name, down, up, alpha, magnitude } of fuseFlowLayers(fileLayers(part), layersIn(blocks))) {
    const path = `diffusion_model.${name}`;
    tensors.set(`${path}.lora_A.weight`, down).set(`${path}.lora_B.weight`, scaled(up, alpha / down.shape[0]!));
    if (magnitude) tensors.set(`${path}.dora_scale`, magnitudeColumn(magnitude));
  }
  return tensors;
}

const layersIn = (blocks: LoraNameOptions["blocks"]): readonly TargetLayer[] =>
  typeof blocks === "object" ? blocks : [];

/** As files of kohya's have them: alpha is what is divided by the rank. */
function fileLayers({ config, state, layers }: AdapterPart<LoRAConfig>): FileLayer[] {
  return layers.map(({ path }) => {
    const { down, up, magnitude } = matrices(state, path);
    const values = magnitude as Tensor<"float32"> | undefined;
    return {
      name: path,
      down: down as Tensor<"float32">,
      up: up as Tensor<"float32">,
      alpha: config.scaleOf(path) * config.rankOf(path),
      magnitude: values && { axis: isPerInput(values) ? "input" : "output", values },
    };
  });
}

/** LyCORIS's `dora_scale` of a linear layer. */
const magnitudeColumn = ({ axis, values }: NonNullable<FileLayer["magnitude"]>): Tensor =>
  values.reshape(axis === "input" ? [1, values.size] : [values.size, 1]);

function kohyaTensors(
  part: AdapterPart<LoRAConfig>,
  textEncoders: NonNullable<LoraFileOptions["textEncoders"]>,
  source: string,
  { naming: asked, blocks }: LoraNameOptions,
): Map<string, Tensor> {
  const tensors = new Map<string, Tensor>();
  const add = (layers: readonly FileLayer[], nameOf: (path: string) => string) => {
    for (const { name: path, down, up, alpha, magnitude } of layers) {
      const name = nameOf(path);
      if (tensors.has(`${name}.alpha`)) throw new FormatError(source, `two layers would be named "${name}".`);
      tensors
        .set(`${name}.lora_down.weight`, down)
        .set(`${name}.lora_up.weight`, up)
        .set(`${name}.alpha`, tensor(Float32Array.of(alpha), []));
      if (!magnitude) continue;
      const column = magnitudeColumn(magnitude);
      tensors.set(`${name}.dora_scale`, column.reshape([...column.shape, ...down.shape.slice(2).map(() => 1)]));
    }
  };
  const naming = asked ?? kohyaNamingOf(part.layers);
  if (asked !== undefined || isUNet(part.layers)) add(fileLayers(part), (path) => kohyaName(path, naming, blocks));
  else {
    add(fuseFlowLayers(fileLayers(part), layersIn(blocks)), (path) => `lora_unet_${path.replaceAll(".", "_")}`);
  }
  // Only SDXL, which has two, numbers them.
  const isXl = naming === "original" || textEncoders.has("text_encoder_2");
  for (const [encoder, own] of textEncoders) {
    const prefix = encoder === "text_encoder_2" ? "lora_te2" : isXl ? "lora_te1" : "lora_te";
    add(fileLayers(own), (path) => `${prefix}_${path.replaceAll(".", "_")}`);
  }
  return tensors;
}

function matrices(state: AdapterPart["state"], path: string) {
  return {
    down: state.get(`${path}.lora_A.weight`)!,
    up: state.get(`${path}.lora_B.weight`)!,
    magnitude: state.get(`${path}.lora_magnitude_vector`),
  };
}

/** DoRA's magnitudes are `[1, in]` where they are per input. */
const isPerInput = ({ shape }: Tensor): boolean => shape.length === 2;

/** @throws {ConfigError} If the magnitudes are per input, which PEFT does not know. */
function perOutput(path: string, magnitude: Tensor<"float32">): Tensor<"float32"> {
  if (!isPerInput(magnitude)) return magnitude;
  throw new ConfigError(
    `${path}: PEFT and diffusers know DoRA's magnitudes per output only; this adapter's are per input.`,
  );
}

/** PEFT's adapter_config.json. Layers are named by their whole paths: a shorter name could match others. */
function peftConfigOf({ config, layers, state }: AdapterPart<LoRAConfig>): Record<string, unknown> {
  const { rank, alpha, dropout, useRslora } = config;
  const differing = (of: (path: string) => number, usual: number) =>
    Object.fromEntries(
      layers.flatMap(({ path }) => (of(path) === usual ? [] : [[`^${path.replaceAll(".", "\\.")}`, of(path)]])),
    );
  return {
    peft_type: "LORA",
    base_model_name_or_path: null,
    task_type: null,
    inference_mode: true,
    r: rank,
    lora_alpha: alpha,
    lora_dropout: dropout,
    bias: "none",
    fan_in_fan_out: false,
    use_rslora: useRslora,
    use_dora: [...state.keys()].some((name) => name.endsWith(".lora_magnitude_vector")),
    rank_pattern: differing((path) => config.rankOf(path), rank),
    alpha_pattern: differing((path) => config.alphaOf(path), alpha),
    target_modules: layers.map(({ path }) => path),
  };
}
