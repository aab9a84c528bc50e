// Writes adapters as plain LoRA, which knows no routing: for kohya's scripts and ComfyUI, for diffusers, for PEFT.

import { ConfigError, FormatError } from "../../errors.js";
import { encodeSafetensors } from "../../storage/safetensors.js";
import { writeFileAt } from "../../storage/storage.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import { type AdapterData, FOLDER_CONFIG, FOLDER_WEIGHTS, type LoadedAdapter } from "../adapter-format.js";
import type { FeRAConfig } from "../fera/fera-config.js";
import { expertName } from "../fera/fera-state.js";
import { freezeGates } from "../fera/frozen-gates.js";
import { type KohyaNaming, kohyaName, kohyaNamingOf } from "./lora-names.js";

/**
 * - `kohya`: one `.safetensors` file, `lora_unet_….lora_down.weight`, `.lora_up.weight`, `.alpha`; ComfyUI, A1111,
 *   kohya's scripts and diffusers read it.
 * - `diffusers`: one `.safetensors` file, `unet.….lora_A.weight`, `.lora_B.weight`; a folder gets it under the name that
 *   `load_lora_weights` looks for.
 * - `peft`: a folder of `adapter_config.json` and `adapter_model.safetensors` with `base_model.model.….lora_A.weight`.
 */
export type PlainLoraFormat = "kohya" | "diffusers" | "peft";

/** How {@link writePlainLora} writes. */
export interface PlainLoraOptions {
  to: PlainLoraFormat;
  /** Only for `kohya`; by default what the layers tell, see {@link kohyaNamingOf}. */
  naming?: KohyaNaming;
  /** The UNet's `layers_per_block`, for kohya's names of SDXL. Default 2. */
  layersPerBlock?: number;
}

const DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors";

/** Why a path is none that a plain LoRA of this format can be written to, if so. */
export function plainLoraPathProblem(path: string, to: PlainLoraFormat): string | undefined {
  // An empty one would be a folder at the root of the file system.
  if (path === "") return "OUT must be a text that is not empty.";
  const isFile = /\.safetensors$/i.test(path);
  if (to === "kohya" && !isFile) return `kohya's format is a file; OUT must end in .safetensors; got ${path}.`;
  if (to === "peft" && isFile) return `PEFT's format is a folder; name one as OUT; got ${path}.`;
  if (!isFile && /\.(pt|pth|bin|ckpt|pkl|json)$/i.test(path)) {
    return `a plain LoRA is written as safetensors${to === "diffusers" ? " or into a folder" : ""}; got ${path}.`;
  }
  return undefined;
}

/**
 * Writes the adapter as it acts while its gates are the given ones, as one LoRA of rank E·r per layer.
 *
 * Every such program scales with alpha / rank; alpha is the rank, so that the product is exactly that of
 * {@link freezeGates}. The header's metadata keep gates and configuration under `fera_frozen_gates`.
 *
 * @param gates - E finite numbers.
 * @throws {ConfigError} If the gates, or the path's ending, do not fit, or kohya has no name for a layer.
 * @throws {FormatError} If two layers would get the same name, or a file cannot be written.
 */
export async function writePlainLora(
  path: string,
  adapter: LoadedAdapter<FeRAConfig>,
  gates: readonly number[],
  options: PlainLoraOptions,
): Promise<void> {
  const problem = plainLoraPathProblem(path, options.to);
  if (problem) throw new ConfigError(problem);
  const frozen = freezeGates(adapter, gates);
  const metadata = { format: "pt", fera_frozen_gates: JSON.stringify({ gates, config: adapter.config }) };
  if (options.to === "kohya") {
    const bytes = encodeKohya(frozen, options, metadata, path);
    return writeFileAt(path, bytes);
  }
  if (options.to === "diffusers") {
    const bytes = encodeSafetensors(peftTensors(frozen, "unet."), metadata);
    if (/\.safetensors$/i.test(path)) return writeFileAt(path, bytes);
    return writeFileAt(`${path}/${DIFFUSERS_WEIGHTS}`, bytes, { makeFolder: true });
  }
  const bytes = encodeSafetensors(peftTensors(frozen, "base_model.model."), metadata);
  await writeFileAt(`${path}/${FOLDER_WEIGHTS}`, bytes, { makeFolder: true });
  const json = new TextEncoder().encode(`${JSON.stringify(peftConfig(frozen), undefined, 2)}\n`);
  await writeFileAt(`${path}/${FOLDER_CONFIG}`, json, { makeFolder: true });
}

function encodeKohya(
  { config, layers, state }: LoadedAdapter<FeRAConfig>,
  { naming = kohyaNamingOf(layers), layersPerBlock }: PlainLoraOptions,
  metadata: Record<string, string>,
  source: string,
): Uint8Array {
  const alpha = tensor(Float32Array.of(config.rank), []);
  const tensors = new Map<string, Tensor>();
  for (const { path } of layers) {
    const name = kohyaName(path, naming, layersPerBlock);
    if (tensors.has(`${name}.alpha`)) throw new FormatError(source, `two layers would be named "${name}".`);
    const { down, up } = product(state, path);
    tensors.set(`${name}.lora_down.weight`, down).set(`${name}.lora_up.weight`, up).set(`${name}.alpha`, alpha);
  }
  return encodeSafetensors(tensors, {
    ...metadata,
    ss_network_module: "networks.lora",
    ss_network_dim: String(config.rank),
    ss_network_alpha: String(config.rank),
  });
}

function peftTensors({ layers, state }: LoadedAdapter, prefix: string): Map<string, Tensor> {
  const tensors = new Map<string, Tensor>();
  for (const { path } of layers) {
    const { down, up } = product(state, path);
    tensors.set(`${prefix}${path}.lora_A.weight`, down).set(`${prefix}${path}.lora_B.weight`, up);
  }
  return tensors;
}

function product(state: AdapterData["state"], path: string) {
  return { down: state.get(expertName(path, 0, "down"))!, up: state.get(expertName(path, 0, "up"))! };
}

/** The layers are named by their whole paths: a shorter name could match others. */
function peftConfig({ config, layers }: LoadedAdapter<FeRAConfig>): object {
  return {
    peft_type: "LORA",
    base_model_name_or_path: null,
    task_type: null,
    inference_mode: true,
    r: config.rank,
    lora_alpha: config.rank,
    lora_dropout: 0,
    bias: "none",
    fan_in_fan_out: false,
    use_rslora: false,
    use_dora: false,
    target_modules: layers.map(({ path }) => path),
  };
}
