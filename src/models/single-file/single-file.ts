// Models out of a single-file checkpoint: a whole Stable Diffusion pipeline in one safetensors file under its original
// names, or a transformer under flow matching, alone or with what it works with. The weights are used in place, renamed; the
// tables of names are in single-file-names.ts and in flow-layout.ts.

import { ConfigError, FormatError } from "../../errors.js";
import { quote } from "../../storage/json.js";
import { readModelConfig } from "../../storage/model-folder.js";
import type { SafetensorsEntry } from "../../storage/safetensors.js";
import { openSafetensorsIn, type SafetensorsSource } from "../../storage/safetensors-source.js";
import type { Storage } from "../../storage/storage.js";
import { harmlessIn, isBesideModels } from "../harmless-weights.js";
import type { LoadedWeights, ModelFolder } from "../loaded-weights.js";
import { parseUNetConfig } from "../unet-2d-condition/unet-config.js";
import { loadSafetensors, type WeightType } from "../weight-loading.js";
import { flowConfigOf } from "./flow-configs.js";
import { flowEntries, halfNames } from "./flow-entries.js";
import { checkFlowNames, type FlowLayout, type FlowWords, flowLayoutOf, partHas } from "./flow-layout.js";
import { flipped, identity, splitRows, stacked, transposed, twice, withoutKernel } from "./rearranged-weights.js";
import {
  autoencoderModules,
  CLIP_MODULES,
  type ModulePair,
  NameTable,
  openClipModules,
  unetModules,
} from "./single-file-names.js";
import { STABLE_DIFFUSION_1_CONFIG } from "./stable-diffusion-1-config.js";

/** The families, as the tensors' names distinguish them. */
export type CheckpointFamily = "Stable Diffusion 1.x" | "Stable Diffusion 2.x" | "Stable Diffusion XL" | FlowWords;

/** A model's part of a checkpoint. */
interface Part {
  /** Its folder in diffusers' layout. */
  component: "unet" | "vae" | "text_encoder" | "text_encoder_2";
  /** In front of its names; the first that occurs. */
  prefixes: readonly string[];
}

const PARTS: Readonly<Record<string, Part>> = {
  UNet2DConditionModel: { component: "unet", prefixes: ["model.diffusion_model."] },
  AutoencoderKL: { component: "vae", prefixes: ["first_stage_model."] },
  CLIPTextModel: {
    component: "text_encoder",
    prefixes: ["cond_stage_model.transformer.", "conditioner.embedders.0.transformer.", "cond_stage_model.model."],
  },
  CLIPTextModelWithProjection: { component: "text_encoder_2", prefixes: ["conditioner.embedders.1.model."] },
};

const IN_PROJECTION = /^transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)$/;
const PROJECTIONS = ["q_proj", "k_proj", "v_proj"] as const;

/** Scales beside weights in float8 or 4 bits, as ComfyUI, diffusers and NVIDIA's tools call them. */
const SCALES = /(^|\.)scaled_fp8$|\.(scale_weight|scale_input|weight_scale(_2)?|input_scale|comfy_quant)$/;

/** The table of names of one part. */
export function singleFileNames(
  component: Part["component"],
  config: Record<string, unknown>,
  { openClip = component === "text_encoder_2" }: { openClip?: boolean } = {},
): NameTable {
  return new NameTable(modulesOf(component, config, openClip));
}

/** A single-file checkpoint whose header has been read. */
export interface SingleFile extends SafetensorsSource {
  /** As its names tell. */
  family: CheckpointFamily;
  /** Of a transformer under flow matching: what the file holds. */
  flow: FlowLayout | undefined;
}

/**
 * Opens a single-file checkpoint; only its header is read.
 *
 * @throws {FormatError} If it is another kind of file, or holds tensors that are of no model of its family.
 */
export async function openSingleFile(storage: Storage, name: string): Promise<SingleFile> {
  const path = storage.nameOf(name);
  if (/\.(ckpt|pt|pth|bin)$/i.test(name)) {
    throw new FormatError(
      path,
      "is a pickled checkpoint, which may hold more than tensors and is not read. Fetch its safetensors version, or " +
        "convert it (diffusers: from_single_file, then save_pretrained).",
    );
  }
  const opened = await openSafetensorsIn(storage, name, { part: true });
  const names = [...opened.entries.keys()];
  const scales = names.filter((each) => SCALES.test(each));
  if (scales.length > 0) {
    throw new FormatError(
      path,
      `holds quantized weights with scales beside them (${scales.slice(0, 3).map(quote).join(", ")}), which are not supported. ` +
        "Take the model's file in bfloat16, float16, or float8 without scales.",
    );
  }
  const flow = flowLayoutOf(names);
  if (flow) {
    checkFlowNames(names, flow, path);
    return { ...opened, family: flow.words, flow };
  }
  const family = familyOf(names);
  if (family === undefined) {
    throw new FormatError(
      path,
      "is no whole Stable Diffusion checkpoint (model.diffusion_model.*, first_stage_model.* and a text encoder, " +
        "cond_stage_model.* or conditioner.*), and no transformer of Stable Diffusion 3, FLUX.1, FLUX.2 or Z-Image in the " +
        `original code's names; it begins with ${names.slice(0, 3).join(", ") || "nothing"}.`,
    );
  }
  const prefixes = Object.values(PARTS).flatMap((part) => part.prefixes);
  const strange = names.filter((each) => !isBesideModels(each) && !prefixes.some((prefix) => each.startsWith(prefix)));
  if (strange.length > 0) {
    const more = strange.length > 3 ? ` and ${strange.length - 3} more` : "";
    throw new FormatError(
      path,
      `holds tensors that are of no part of a ${family} pipeline: ${strange.slice(0, 3).map(quote).join(", ")}${more}. ` +
        "Without them its results would be others.",
    );
  }
  return { ...opened, family, flow: undefined };
}

function familyOf(names: readonly string[]): CheckpointFamily | undefined {
  const has = (prefix: string) => names.some((name) => name.startsWith(prefix));
  if (!has("model.diffusion_model.") || !has("first_stage_model.")) return undefined;
  if (has("cond_stage_model.transformer.")) return "Stable Diffusion 1.x";
  if (has("cond_stage_model.model.")) return "Stable Diffusion 2.x";
  return has("conditioner.embedders.") ? "Stable Diffusion XL" : undefined;
}

/** How {@link readSingleFile} reads. */
export interface SingleFileOptions {
  /** The model's folder in diffusers' layout, where a pipeline may have several of its class. */
  subfolder?: string;
  /**
   * The folder of a pipeline with the configuration; without it, Stable Diffusion 1.x takes the built-in one, and that of a
   * transformer under flow matching is told from shapes.
   */
  config?: Storage;
  dtype?: WeightType;
  dryRun?: boolean;
  signal?: AbortSignal;
}

/**
 * Reads one model of a single-file checkpoint.
 *
 * @param className - The model's class in diffusers or transformers.
 * @returns Undefined where a file of a transformer under flow matching does not hold the model, and `config` is given: its
 *   folder does.
 * @throws {FormatError} If the file holds no such model, or a tensor that the model does not know.
 * @throws {ConfigError} If a configuration is needed, or asks for what is not supported.
 */
export async function readSingleFile(
  storage: Storage,
  file: string,
  className: string,
  options: SingleFileOptions = {},
): Promise<ModelFolder | undefined> {
  const opened = await openSingleFile(storage, file);
  if (opened.flow) return readFlowFile(storage, { ...opened, flow: opened.flow }, className, options);
  const { source: path } = opened;
  const part = PARTS[className];
  if (!part) throw new FormatError(path, `a single-file checkpoint holds no ${className}; name a folder instead.`);
  const config = await configOf(part, className, opened, options.config);
  const names = [...opened.entries.keys()];
  const prefix = part.prefixes.find((candidate) => names.some((name) => name.startsWith(candidate)));
  if (prefix === undefined) {
    throw new FormatError(path, `holds no ${part.component}: no tensor's name begins with ${part.prefixes[0]}`);
  }
  const openClip = prefix.endsWith("model.") && part.component.startsWith("text_encoder");
  const table = singleFileNames(part.component, config, { openClip });
  const isHarmless = harmlessIn(className);
  const { weights: loaded, integers } = await loadSafetensors(storage, opened, {
    part: { label: prefix, has: (name) => name.startsWith(prefix) && !isHarmless(name.slice(prefix.length)) },
    dtype: options.dtype,
    dryRun: options.dryRun,
    signal: options.signal,
  });
  for (const name of integers) knownName(table, name.slice(prefix.length), path);
  const local = new Map([...loaded].map(([name, weight]) => [name.slice(prefix.length), weight]));
  const weights = openClip
    ? await renameOpenClip(local, table, part, config, path, options.dryRun ?? false)
    : rename(local, table, path);
  const source = options.config ? options.config.nameOf(part.component) : path;
  return { source, config, weights, integers: [] };
}

/** Like {@link readSingleFile}, of a file with a transformer under flow matching. */
async function readFlowFile(
  storage: Storage,
  opened: SafetensorsSource & { flow: FlowLayout },
  className: string,
  { subfolder, config: folder, dtype, dryRun = false, signal }: SingleFileOptions,
): Promise<ModelFolder | undefined> {
  const { flow, source: path } = opened;
  const component = [...flow.parts].find(
    ([name, part]) => part.className === className && (name === "transformer" || !subfolder || name === subfolder),
  )?.[0];
  if (component === undefined) {
    if (folder && /Transformer/.test(className) === false) return undefined;
    const held = [...flow.parts].map(([name, part]) => `${name} (${part.className})`).join(", ");
    throw new FormatError(path, `holds no ${className}, but of a ${flow.words} pipeline: ${held}.`);
  }
  const { prefix } = flow.parts.get(component)!;
  const has = partHas(flow, component);
  const isHarmless = harmlessIn(className);
  const own = new Map<string, SafetensorsEntry>();
  for (const [name, entry] of opened.entries) {
    const local = name.slice(prefix.length);
    if (has(name) && !isHarmless(local)) own.set(local, entry);
  }
  const isTransformer = component === "transformer";
  const config = folder
    ? await readModelConfig(folder, { subfolder: component, expectedClass: classesOf(className) })
    : isTransformer
      ? flowConfigOf(flow.family, new Map([...own].map(([name, { shape }]) => [name, shape])), path)
      : undefined;
  if (!config) throw withoutConfig(path, flow.words);
  const { entries, swapped } = isTransformer
    ? flowEntries(own, flow, path)
    : { entries: component === "vae" ? autoencoderEntries(own, config, path) : own, swapped: [] };
  const { weights, integers } = await loadSafetensors(storage, opened.withEntries(entries), {
    part: { label: `${component} in diffusers' names`, has: () => true },
    ...{ dtype, dryRun, signal },
  });
  for (const name of swapped) {
    const halves = halfNames(name).map((half) => weights.get(half)!);
    for (const half of halfNames(name)) weights.delete(half);
    weights.set(name, dryRun ? twice(halves[0]!) : await stacked(halves));
  }
  if (className === "CLIPTextModelWithProjection" && !weights.has("text_projection.weight")) {
    // Files of Stable Diffusion 3 go without the first encoder's, which changes nothing.
    weights.set("text_projection.weight", identity(config.hidden_size));
  }
  return { source: folder ? folder.nameOf(component) : path, config, weights, integers };
}

const classesOf = (className: string): string | string[] =>
  className === "Qwen3Model" ? ["Qwen3Model", "Qwen3ForCausalLM"] : className;

function autoencoderEntries(
  own: ReadonlyMap<string, SafetensorsEntry>,
  config: Record<string, unknown>,
  path: string,
): Map<string, SafetensorsEntry> {
  const table = singleFileNames("vae", config);
  return new Map(
    [...own].map(([old, entry]) => {
      const name = knownName(table, old, path);
      return [name, isPixelProjection(name) ? { ...entry, shape: entry.shape.slice(0, 2) } : entry];
    }),
  );
}

async function configOf(
  { component }: Part,
  className: string,
  { family, source }: SingleFile,
  config: Storage | undefined,
): Promise<Record<string, unknown>> {
  if (config !== undefined) return readModelConfig(config, { subfolder: component, expectedClass: className });
  if (family === "Stable Diffusion 1.x" && component !== "text_encoder_2") {
    return STABLE_DIFFUSION_1_CONFIG[component];
  }
  throw withoutConfig(source, family);
}

const withoutConfig = (path: string, family: string): ConfigError =>
  new ConfigError(
    `${path}: is a ${family} checkpoint, whose configuration is not in the file. ` +
      "Give `config`: the folder or hub id of the pipeline that it was made from, in diffusers' layout.",
  );

function modulesOf(
  component: Part["component"],
  config: Record<string, unknown>,
  openClip: boolean,
): readonly ModulePair[] {
  if (component === "unet") return unetModules(parseUNetConfig(config, "unet/config.json"));
  if (component === "vae") {
    const widths = config.block_out_channels;
    const layers = config.layers_per_block;
    return autoencoderModules({
      levels: Array.isArray(widths) ? widths.length : 1,
      layersPerBlock: typeof layers === "number" ? layers : 1,
    });
  }
  return openClip ? openClipModules(layersOf(config)) : CLIP_MODULES;
}

function layersOf(config: Record<string, unknown>): number {
  return typeof config.num_hidden_layers === "number" ? config.num_hidden_layers : 12;
}

function rename(local: LoadedWeights, table: NameTable, path: string): LoadedWeights {
  const weights: LoadedWeights = new Map();
  for (const [old, weight] of local) {
    const name = knownName(table, old, path);
    weights.set(name, isPixelProjection(name) ? withoutKernel(weight) : weight);
  }
  return weights;
}

async function renameOpenClip(
  local: LoadedWeights,
  table: NameTable,
  part: Part,
  config: Record<string, unknown>,
  path: string,
  dryRun: boolean,
): Promise<LoadedWeights> {
  const weights: LoadedWeights = new Map();
  const layers = layersOf(config);
  const spare = new Set<string>();
  for (const [old, weight] of local) {
    const layer = /^transformer\.resblocks\.(\d+)\./.exec(old)?.[1];
    // Stable Diffusion 2.x goes without OpenCLIP's last layer, which its files hold all the same.
    if (layer !== undefined && Number(layer) >= layers && part.component === "text_encoder") {
      if (spare.add(layer).size > 1) {
        throw new FormatError(
          path,
          `has the text encoder's layers ${[...spare].join(" and ")}, but num_hidden_layers is ${layers}: one layer may be ` +
            "left out at the end, not more. Is the `config` that of another model?",
        );
      }
      continue;
    }
    const joined = IN_PROJECTION.exec(old);
    if (joined) {
      const rows = splitRows(weight, PROJECTIONS.length, old, path);
      for (const [i, projection] of PROJECTIONS.entries()) {
        weights.set(`text_model.encoder.layers.${layer}.self_attn.${projection}.${joined[2]}`, rows[i]!);
      }
    } else if (old !== "text_projection") {
      weights.set(knownName(table, old, path), weight);
    } else if (part.component === "text_encoder_2") {
      // OpenCLIP multiplies by it from the right.
      weights.set("text_projection.weight", dryRun ? flipped(weight) : await transposed(weight));
    }
  }
  return weights;
}

function knownName(table: NameTable, old: string, path: string): string {
  const name = table.toDiffusers(old);
  if (name !== undefined) return name;
  throw new FormatError(
    path,
    `has the tensor "${old}", which this model has no place for. Is it of another kind, or does it need a \`config\`?`,
  );
}

/** The autoencoder's attention over pixels: 1×1 convolutions there, linear layers in diffusers. */
function isPixelProjection(name: string): boolean {
  return /^(encoder|decoder)\.mid_block\.attentions\.0\.to_(q|k|v|out\.0)\.weight$/.test(name);
}
