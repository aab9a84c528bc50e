// A LoRA's tensors and metadata in the names of other programs: kohya, diffusers, PEFT.

import { FormatError } from "../../errors.js";
import { encodeSafetensors } from "../../storage/safetensors.js";
import { writeFileAt } from "../../storage/storage.js";
import { encodeTorch } from "../../storage/torch.js";
import { Tensor, tensor } from "../../tensor/tensor.js";
import { DIFFUSERS_WEIGHTS, writeAdapterFolder } from "../adapter-folder.js";
import type { AdapterPart } from "../loaded-adapter.js";
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
  /** Only for `kohya`; by default what the layers tell, see {@link kohyaNamingOf}. */
  naming?: KohyaNaming | undefined;
  /** What kohya's names of SDXL count through: all layers of the model, or its `layers_per_block`. Default 2. */
  blocks?: readonly TargetLayer[] | number | undefined;
}

/** {@link LoraNameOptions}, and more strings for the header. */
export interface LoraFileOptions extends LoraNameOptions {
  metadata?: Readonly<Record<string, string>> | undefined;
}

/**
 * Writes a LoRA: into a folder in PEFT's names or where the path has no ending, otherwise into one file.
 *
 * @param path - A `.pt` file keeps no metadata.
 * @throws {ConfigError | FormatError} As {@link encodeLora}, and if it cannot be written.
 */
export async function writeLora(
  path: string,
  part: AdapterPart<LoRAConfig>,
  names: LoraFileNames,
  { metadata, ...options }: LoraFileOptions = {},
): Promise<void> {
  const encoded = encodeLora(part, names, path, options);
  if (/\.(pt|pth)$/i.test(path)) return writeFileAt(path, encodeTorch(encoded.tensors, path));
  const bytes = encodeSafetensors(encoded.tensors, { ...encoded.metadata, ...metadata });
  if (names === "peft") return writeAdapterFolder(path, bytes, peftConfigOf(part));
  if (/\.safetensors$/i.test(path)) return writeFileAt(path, bytes);
  return writeFileAt(`${path}/${DIFFUSERS_WEIGHTS}`, bytes, { makeFolder: true });
}

/** Tensors by name, and strings for the header. */
interface EncodedLora {
  tensors: Map<string, Tensor>;
  metadata: Record<string, string>;
}

/**
 * Encodes a LoRA.
 *
 * @param source - Names the file in messages.
 * @throws {ConfigError} If kohya has no name for a layer.
 * @throws {FormatError} If two layers would get the same name.
 */
function encodeLora(
  part: AdapterPart<LoRAConfig>,
  names: LoraFileNames,
  source: string,
  options: LoraNameOptions = {},
): EncodedLora {
  const metadata = { format: "pt", [LORA_CONFIG_KEY]: JSON.stringify(part.config) };
  if (names === "kohya") return encodeKohya(part, metadata, source, options);
  const { config, state, layers } = part;
  const tensors = new Map<string, Tensor>();
  const component = isUNet(layers) ? "unet." : "transformer.";
  const prefix = names === "peft" ? "base_model.model." : component;
  for (const { path } of layers) {
    const { down, up } = matrices(state, path);
    // Without a configuration beside it, every program scales diffusers' names by 1: the scale goes into one matrix.
    const scale = names === "peft" ? 1 : config.scaleOf(path);
    tensors.set(`${prefix}${path}.lora_A.weight`, down).set(`${prefix}${path}.lora_B.weight`, scaled(up, scale));
  }
  return { tensors, metadata };
}

/**
 * The names for a file whose user has chosen none: kohya's, because ComfyUI, A1111, kohya's scripts and diffusers all read
 * them, each layer with its own alpha; diffusers' for models that kohya's scripts have no names for.
 */
export const defaultLoraNames = (layers: readonly TargetLayer[]): LoraFileNames =>
  isUNet(layers) ? "kohya" : "diffusers";

function encodeKohya(
  { config, state, layers }: AdapterPart<LoRAConfig>,
  metadata: Record<string, string>,
  source: string,
  { naming = kohyaNamingOf(layers), blocks }: LoraNameOptions,
): EncodedLora {
  const tensors = new Map<string, Tensor>();
  for (const { path } of layers) {
    const name = kohyaName(path, naming, blocks);
    if (tensors.has(`${name}.alpha`)) throw new FormatError(source, `two layers would be named "${name}".`);
    const { down, up } = matrices(state, path);
    const alpha = config.scaleOf(path) * config.rankOf(path);
    tensors
      .set(`${name}.lora_down.weight`, down)
      .set(`${name}.lora_up.weight`, up)
      .set(`${name}.alpha`, tensor(Float32Array.of(alpha), []));
  }
  const says = { ss_network_dim: String(config.rank), ss_network_alpha: String(config.alpha) };
  return { tensors, metadata: { ...metadata, ss_network_module: "networks.lora", ...says } };
}

function matrices(state: AdapterPart["state"], path: string) {
  return { down: state.get(`${path}.lora_A.weight`)!, up: state.get(`${path}.lora_B.weight`)! };
}

function scaled(value: Tensor<"float32">, factor: number): Tensor<"float32"> {
  if (factor === 1) return value;
  return new Tensor(
    "float32",
    value.shape,
    value.data.map((each) => each * factor),
  );
}

/** PEFT's adapter_config.json. Layers are named by their whole paths: a shorter name could match others. */
function peftConfigOf({ config, layers }: AdapterPart<LoRAConfig>): Record<string, unknown> {
  const { rank, alpha, dropout, useRslora, rankPattern, alphaPattern } = config;
  const asPatterns = (values: Readonly<Record<string, number>>) =>
    Object.fromEntries(Object.entries(values).map(([path, value]) => [`^${path.replaceAll(".", "\\.")}`, value]));
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
    use_dora: false,
    rank_pattern: asPatterns(rankPattern),
    alpha_pattern: asPatterns(alphaPattern),
    target_modules: layers.map(({ path }) => path),
  };
}
