// LoKr's and LoHa's tensors and metadata in the names of LyCORIS (kohya's) and of PEFT.

import { ConfigError, FormatError } from "../../errors.js";
import { encodeSafetensors } from "../../storage/safetensors.js";
import { Tensor, tensor } from "../../tensor/tensor.js";
import { scaled } from "../float-state.js";
import type { AdapterPart } from "../loaded-adapter.js";
import { LOHA_NAMES } from "../loha/loha-adapter.js";
import type { LoHaConfig } from "../loha/loha-config.js";
import { LoKrConfig } from "../lokr/lokr-config.js";
import { factorization, LOKR_NAMES } from "../lokr/lokr-shapes.js";
import { type KohyaNaming, kohyaName, kohyaNamingOf } from "../lora/lora-names.js";
import type { TargetLayer } from "../target-layers.js";

type Config = LoKrConfig | LoHaConfig;
export type LycorisPart = AdapterPart<Config>;

/** How kohya's names of layers are made; see `kohyaName`. */
export interface LycorisNames {
  naming?: KohyaNaming | undefined;
  blocks?: readonly TargetLayer[] | number | undefined;
}

/**
 * The tensors as LyCORIS writes them: `lora_unet_….lokr_w1`, `.alpha`.
 *
 * @param textEncoders - Parts for text encoders, by the beginning of their names (`lora_te`, `lora_te1`, `lora_te2`).
 * @throws {ConfigError} If kohya has no name for a layer.
 * @throws {FormatError} If two layers would get the same name.
 */
export function lycorisTensors(
  part: LycorisPart,
  source: string,
  { naming = kohyaNamingOf(part.layers), blocks }: LycorisNames = {},
  textEncoders: ReadonlyMap<string, LycorisPart> = new Map(),
): Map<string, Tensor> {
  const tensors = new Map<string, Tensor>();
  const add = (own: LycorisPart, nameOf: (path: string) => string) => {
    for (const { path } of own.layers) {
      const name = nameOf(path);
      if (tensors.has(`${name}.alpha`)) throw new FormatError(source, `two layers would be named "${name}".`);
      const values = tensorsOf(own, path);
      const scale = own.config.scaleOf(path);
      const rank = own.config.rankOf(path);
      // LyCORIS takes 1 for the scale of two whole factors.
      const isWhole = values.has("lokr_w1") && values.has("lokr_w2");
      for (const [end, value] of values) {
        tensors.set(`${name}.${end}`, flat(isWhole && end === "lokr_w2" ? scaled(value, scale) : value, values, end));
      }
      tensors.set(`${name}.alpha`, tensor(Float32Array.of(isWhole ? rank : scale * rank), []));
    }
  };
  add(part, (path) => kohyaName(path, naming, blocks));
  for (const [prefix, own] of textEncoders) add(own, (path) => `${prefix}_${path.replaceAll(".", "_")}`);
  return tensors;
}

/** What LyCORIS's files say of themselves. */
export function lycorisMetadata({ config }: LycorisPart): Record<string, string> {
  const { adapterType: algo, rank, alpha, useTucker } = config;
  const args: Record<string, unknown> = { algo, ...(useTucker && { use_tucker: true }) };
  if (config instanceof LoKrConfig) {
    const { factor, decomposeBoth, fullMatrix } = config;
    Object.assign(args, {
      factor,
      ...(decomposeBoth && { decompose_both: true }),
      ...(fullMatrix && { full_matrix: true }),
    });
  }
  return {
    ss_network_module: "lycoris.kohya",
    ss_network_dim: `${rank}`,
    ss_network_alpha: `${alpha}`,
    ss_network_args: JSON.stringify(args),
  };
}

/** The files of PEFT's folder. @throws {ConfigError} If PEFT would make tensors of other shapes; the layer is named. */
export function peftFolder(part: LycorisPart, metadata: Readonly<Record<string, string>>) {
  const tensors = new Map<string, Tensor>();
  const { config, layers } = part;
  const ranks: Record<string, number> = {};
  const alphas: Record<string, number> = {};
  const useTucker = config.useTucker || [...part.state.keys()].some((name) => /\.(hada_t1|lokr_t2)$/.test(name));
  const decomposeBoth = [...part.state.keys()].some((name) => name.endsWith(".lokr_w1_a"));
  for (const layer of layers) {
    const { path } = layer;
    const values = tensorsOf(part, path);
    const rank = config instanceof LoKrConfig ? peftRank(layer, values, config, decomposeBoth) : config.rankOf(path);
    const alpha = config.scaleOf(path) * rank;
    const pattern = `^${path.replaceAll(".", "\\.")}`;
    if (rank !== config.rank) ranks[pattern] = rank;
    if (alpha !== config.alpha) alphas[pattern] = alpha;
    for (const [end, value] of values) tensors.set(`base_model.model.${path}.${end}`, flat(value, values, end));
  }
  const json = {
    peft_type: config.adapterType.toUpperCase(),
    base_model_name_or_path: null,
    task_type: null,
    inference_mode: true,
    r: config.rank,
    alpha: config.alpha,
    rank_dropout: 0,
    module_dropout: 0,
    use_effective_conv2d: useTucker,
    ...(config instanceof LoKrConfig && { decompose_both: decomposeBoth, decompose_factor: config.factor }),
    rank_pattern: ranks,
    alpha_pattern: alphas,
    target_modules: layers.map(({ path }) => path),
  };
  return { bytes: encodeSafetensors(tensors, metadata), json };
}

/**
 * The rank at which PEFT makes factors of these shapes: it keeps a factor whole from half its side on.
 *
 * PEFT's own splitting differs from LyCORIS's: a factor that divides a side is the smaller part, even where it is larger.
 */
function peftRank(
  { path, inFeatures, outFeatures }: TargetLayer,
  values: ReadonlyMap<string, Tensor>,
  config: LoKrConfig,
  decomposeBoth: boolean,
): number {
  const { factor } = config;
  const split = (size: number) =>
    factor > 0 && size % factor === 0 ? [factor, size / factor] : factorization(size, factor);
  const [[outSmall, outLarge], [inSmall, inLarge]] = [split(outFeatures), split(inFeatures)] as [number[], number[]];
  const first = values.get("lokr_w1");
  const sides = first?.shape ?? [values.get("lokr_w1_a")!.shape[0]!, values.get("lokr_w1_b")!.shape[1]!];
  const isWhole = values.has("lokr_w2");
  const half = Math.ceil(Math.max(outLarge!, inLarge!) / 2);
  const rank = isWhole ? Math.max(config.rankOf(path), half) : config.rankOf(path);
  const isFirstFactored = decomposeBoth && rank < Math.max(outSmall!, inSmall!) / 2;
  const fits = sides[0] === outSmall && sides[1] === inSmall && isFirstFactored === !first && rank >= half === isWhole;
  if (fits) return rank;
  throw new ConfigError(
    `${path}: PEFT's LoKr makes other factors of this layer (decompose_factor ${factor}, rank ${rank}). ` +
      "Write LyCORIS's names (--to kohya) instead.",
  );
}

/** A layer's tensors by the end of their names. */
function tensorsOf({ state }: LycorisPart, path: string): Map<string, Tensor<"float32">> {
  const own = [...LOKR_NAMES, ...LOHA_NAMES].flatMap((end): [string, Tensor<"float32">][] => {
    const value = state.get(`${path}.${end}`);
    return value ? [[end, value]] : [];
  });
  return new Map(own);
}

/** Low-rank factors of convolutions are matrices in files, but for Tucker's. */
function flat(value: Tensor<"float32">, all: ReadonlyMap<string, Tensor>, end: string): Tensor<"float32"> {
  const isTucker = all.has("hada_t1") || all.has("lokr_t2");
  if (value.shape.length === 2 || isTucker || !end.endsWith("_b")) return value;
  return new Tensor("float32", [value.shape[0]!, value.size / value.shape[0]!], value.data);
}
