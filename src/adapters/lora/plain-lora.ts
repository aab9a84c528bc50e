// Writes adapters as plain LoRA, which knows no routing: for kohya's scripts and ComfyUI, for diffusers, for PEFT.

import { ConfigError } from "../../errors.js";
import type { AdapterPart, LoadedAdapter } from "../adapter-format.js";
import type { FeRAConfig } from "../fera/fera-config.js";
import { expertName } from "../fera/fera-state.js";
import { freezeGates } from "../fera/frozen-gates.js";
import type { TargetLayer } from "../target-layers.js";
import { LoRAConfig } from "./lora-config.js";
import type { KohyaNaming } from "./lora-names.js";
import { writeLora } from "./write-lora.js";

/**
 * - `kohya`: one `.safetensors` file, `lora_unet_….lora_down.weight`, `.lora_up.weight`, `.alpha`; ComfyUI, A1111,
 *   kohya's scripts and diffusers read it.
 * - `diffusers`: one `.safetensors` file, `unet.….lora_A.weight`, `.lora_B.weight`; a folder gets it under the name that
 *   `load_lora_weights` looks for.
 * - `comfyui`: one `.safetensors` file, `diffusion_model.….lora_A.weight`, of flow transformers only.
 * - `peft`: a folder of `adapter_config.json` and `adapter_model.safetensors` with `base_model.model.….lora_A.weight`.
 */
export type PlainLoraFormat = "kohya" | "diffusers" | "peft" | "comfyui";

/** How {@link writePlainLora} writes. */
export interface PlainLoraOptions {
  to: PlainLoraFormat;
  /** Only for `kohya`; by default what the layers tell, see `kohyaNamingOf`. */
  naming?: KohyaNaming;
  /** The UNet's `layers_per_block`, for kohya's names of SDXL. Default 2. */
  layersPerBlock?: number;
  /** All layers of a flow transformer, by which kohya's and ComfyUI's names of its layers are found. */
  modelLayers?: readonly TargetLayer[];
}

/** Why a path is none that a plain LoRA of this format can be written to, if so. */
export function plainLoraPathProblem(path: string, to: PlainLoraFormat): string | undefined {
  // An empty one would be a folder at the root of the file system.
  if (path === "") return "OUT must be a text that is not empty.";
  const isFile = /\.safetensors$/i.test(path);
  if ((to === "kohya" || to === "comfyui") && !isFile) {
    return `${to === "kohya" ? "kohya" : "ComfyUI"}'s format is a file; OUT must end in .safetensors; got ${path}.`;
  }
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
  const metadata = { format: "pt", fera_frozen_gates: JSON.stringify({ gates, config: adapter.config }) };
  const { to, naming, layersPerBlock, modelLayers } = options;
  await writeLora(path, asLora(freezeGates(adapter, gates)), to, {
    naming,
    blocks: modelLayers ?? layersPerBlock,
    metadata,
  });
}

/** The only expert's products as a LoRA. */
function asLora({ config, layers, state }: LoadedAdapter<FeRAConfig>): AdapterPart<LoRAConfig> {
  const matrices = layers.flatMap(({ path }) => [
    [`${path}.lora_A.weight`, state.get(expertName(path, 0, "down"))!] as const,
    [`${path}.lora_B.weight`, state.get(expertName(path, 0, "up"))!] as const,
  ]);
  const { rank, dropout, targetModules, matching } = config;
  const own = new LoRAConfig({ rank, alpha: rank, dropout, targetModules, matching });
  return { config: own, layers, state: new Map(matrices) };
}
