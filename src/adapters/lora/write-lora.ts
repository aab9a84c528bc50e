// A LoRA's tensors and metadata in the names of other programs: kohya, diffusers, PEFT.

import { ConfigError, FormatError } from "../../errors.js";
import { encodeSafetensors } from "../../storage/safetensors.js";
import { writeFileAt } from "../../storage/storage.js";
import { encodeTorch } from "../../storage/torch.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import { DIFFUSERS_WEIGHTS, writeAdapterFolder } from "../adapter-folder.js";
import { scaled } from "../float-state.js";
import type { AdapterPart, TextEncoderName } from "../loaded-adapter.js";
import type { TargetLayer } from "../target-layers.js";
import type { LoRAConfig } from "./lora-config.js";
import { isUNet, type KohyaNaming, kohyaName, kohyaNamingOf } from "./lora-names.js";
import { LORA_CONFIG_KEY } from "./read-lora.js";

/**
 * - `kohya`: `lora_unet_….lora_down.weight`, `.lora_up.weight`, `.alpha`; ComfyUI, A1111, kohya's scripts and diffusers
 *   read it.
 * - `diffusers`: `unet.….lora_A.weight`, `.lora_B.weight`; what `load_lora_weights` calls its own.
 * - `peft`: `base_model.model.….lora_A.weight`, beside an `adapter_config.json`.
 */
export type LoraFileNames = "kohya" | "diffusers" | "peft";

/** How layers are called. */
export interface LoraNameOptions {
  /** Only for `kohya`; by default what the layers tell, see `kohyaNamingOf`. */
  naming?: KohyaNaming | undefined;
  /** What kohya's names of SDXL count through: all layers of the model, or its `layers_per_block`. Default 2. */
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
  names: "kohya" | "diffusers",
  source: string,
  options: LoraFileOptions = {},
): Uint8Array<ArrayBuffer> {
  const tensors = tensorsOf(part, names, source, options);
  const metadata = metadataOf(part, options);
  if (names === "diffusers") return encodeSafetensors(tensors, metadata);
  const { rank, alpha } = part.config;
  const says = { ss_network_module: "networks.lora", ss_network_dim: `${rank}`, ss_network_alpha: `${alpha}` };
  return encodeSafetensors(tensors, { ...metadata, ...says });
}

function tensorsOf(
  part: AdapterPart<LoRAConfig>,
  names: "kohya" | "diffusers",
  source: string,
  { textEncoders = new Map(), ...options }: LoraFileOptions,
): Map<string, Tensor> {
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

function kohyaTensors(
  part: AdapterPart<LoRAConfig>,
  textEncoders: NonNullable<LoraFileOptions["textEncoders"]>,
  source: string,
  { naming = kohyaNamingOf(part.layers), blocks }: LoraNameOptions,
): Map<string, Tensor> {
  const tensors = new Map<string, Tensor>();
  const add = ({ config, state, layers }: AdapterPart<LoRAConfig>, nameOf: (path: string) => string) => {
    for (const { path } of layers) {
      const name = nameOf(path);
      if (tensors.has(`${name}.alpha`)) throw new FormatError(source, `two layers would be named "${name}".`);
      const { down, up, magnitude } = matrices(state, path);
      const alpha = config.scaleOf(path) * config.rankOf(path);
      tensors
        .set(`${name}.lora_down.weight`, down)
        .set(`${name}.lora_up.weight`, up)
        .set(`${name}.alpha`, tensor(Float32Array.of(alpha), []));
      if (!magnitude) continue;
      const sides = isPerInput(magnitude) ? [1, magnitude.size] : [magnitude.size, 1];
      tensors.set(`${name}.dora_scale`, magnitude.reshape([...sides, ...down.shape.slice(2).map(() => 1)]));
    }
  };
  add(part, (path) => kohyaName(path, naming, blocks));
  // Only SDXL, which has two, numbers them.
  const isXl = naming === "original" || textEncoders.has("text_encoder_2");
  for (const [encoder, own] of textEncoders) {
    const prefix = encoder === "text_encoder_2" ? "lora_te2" : isXl ? "lora_te1" : "lora_te";
    add(own, (path) => `${prefix}_${path.replaceAll(".", "_")}`);
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
