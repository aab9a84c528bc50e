// Reads LoKr and LoHa in the names of LyCORIS (kohya's) and of PEFT.

import { z } from "zod";
import { FormatError } from "../../errors.js";
import { parseConfig } from "../../storage/parse-config.js";
import { Tensor } from "../../tensor/tensor.js";
import type { AdapterConfig } from "../adapter.js";
import { floatState } from "../float-state.js";
import { patternValue } from "../layer-pattern.js";
import type { AdapterPart, LoadedAdapter, TextEncoderName } from "../loaded-adapter.js";
import { LoHaAdapter } from "../loha/loha-adapter.js";
import { LoHaConfig } from "../loha/loha-config.js";
import { LoKrAdapter } from "../lokr/lokr-adapter.js";
import { LoKrConfig } from "../lokr/lokr-config.js";
import { lokrShapes } from "../lokr/lokr-shapes.js";
import { findByName, textLayerPath } from "../lora/layer-names.js";
import type { LoraFormat, LoraLayer, LoraPart } from "../lora/lora-format.js";
import { mostFrequent, renamed, shortTargets } from "../lora/lora-part.js";
import { type FoundRanks, metadataNotes } from "../lora/metadata-notes.js";
import { LowRankConfig, type LowRankOptions } from "../low-rank-config.js";
import { checkLayers, type TargetLayer } from "../target-layers.js";

/** What came with the tensors. */
export interface LycorisContext {
  metadata: Readonly<Record<string, string>>;
  source: string;
  /** A folder's adapter_config.json. */
  peft?: Readonly<Record<string, unknown>> | undefined;
  /** The configuration that fera writes beside the tensors. */
  written?: AdapterConfig | undefined;
  /** Says how training goes on where the file does not. */
  assumed?: AdapterConfig | undefined;
}

/** One layer as a file has it. */
interface FactoredLayer {
  /** Its name in the file, or its path. */
  name: string;
  /** By the end of their names: `lokr_w1`, `hada_w1_a`, … */
  tensors: ReadonlyMap<string, Tensor<"float32">>;
  /** Undefined where only whole matrices are there. */
  rank: number | undefined;
  /** The rank that was asked for where whole matrices took its place: LyCORIS keeps it as alpha, PEFT in its configuration. */
  askedRank?: number | undefined;
  /** The factor on the change of the weight. */
  scale: number;
}

const peftSchema = z.object({
  r: z.int().min(1).default(8),
  alpha: z.number().default(8),
  rank_dropout: z.number().default(0),
  module_dropout: z.number().default(0),
  rank_pattern: z.record(z.string(), z.int().min(1)).nullish(),
  alpha_pattern: z.record(z.string(), z.number()).nullish(),
});
type PeftSettings = z.output<typeof peftSchema>;

/**
 * Reads the tensors of a file whose names are understood.
 *
 * A layer's change is scaled by alpha / rank; alpha is the file's own tensor, else its configuration's, else the rank. Where
 * all of a layer's factors are whole, LyCORIS leaves alpha out of account; PEFT does not.
 *
 * @throws {FormatError} If a layer is of another kind, or a tensor is of no layer, is missing, or does not fit the others.
 */
export function readLycoris(
  format: LoraFormat,
  tensors: ReadonlyMap<string, Tensor>,
  { metadata, source, peft, written, assumed }: LycorisContext,
): LoadedAdapter {
  const method = format.method as "lokr" | "loha";
  refuseOthers(format, method, source);
  const settings = peft && parseConfig(peftSchema, peft, source);
  const dropout = (written ?? assumed) as { dropout?: number } | undefined;
  const read = (parts: readonly LoraPart[]) =>
    format.layers
      .filter(({ part }) => parts.includes(part))
      .map((layer) => factoredLayer(layer, method, tensors, settings, source));
  const make = (layers: readonly FactoredLayer[], targets: readonly string[], whole?: AdapterConfig): AdapterPart =>
    partOf(method, layers, { targets, dropout: dropout?.dropout, written: whole }, source);
  const ownNames = (layers: readonly FactoredLayer[]) => layers.map(({ name }) => name);

  const denoiser = read(["unet", "transformer"]);
  const textEncoders = new Map<TextEncoderName, AdapterPart>();
  for (const name of ["text_encoder", "text_encoder_2"] as const) {
    const layers = renamed(read([name]), textLayerPath, source);
    if (layers.length > 0) textEncoders.set(name, make(layers, ownNames(layers)));
  }
  const part = make(denoiser, ownNames(denoiser), written);
  const dropouts = settings && (settings.rank_dropout > 0 || settings.module_dropout > 0);
  return {
    ...part,
    state: new Map(part.state),
    hasConfig: written !== undefined || peft !== undefined,
    textEncoders,
    notes: [
      ...metadataNotes(metadata, foundRanks(format, denoiser), written instanceof LowRankConfig ? written : undefined),
      ...(dropouts
        ? [
            "Its configuration has rank_dropout or module_dropout, which training here does not know: it goes on without",
          ]
        : []),
    ],
    resolve(model) {
      if (denoiser.length === 0) throw new FormatError(source, "changes text encoders only; load it into a pipeline.");
      const known = new Map(model.map((layer) => [layer.path, layer]));
      const layers = renamed(denoiser, findByName(model), source).map((layer) =>
        shapedFor(layer, known.get(layer.name)),
      );
      const resolved = make(layers, shortTargets(layers, model), written);
      checkLayers(resolved.layers, model, source);
      return resolved;
    },
  };
}

function foundRanks({ layers }: LoraFormat, found: readonly FactoredLayer[]): FoundRanks {
  const own = new Set(layers.filter(({ alpha }) => alpha !== undefined).map(({ name }) => name));
  const ranked = found.flatMap(({ name, rank, scale }) => (rank === undefined ? [] : [{ name, rank, scale }]));
  return {
    ranks: ranked.map(({ rank }) => rank),
    alphas: ranked.filter(({ name }) => own.has(name)).map(({ rank, scale }) => rounded(rank * scale)),
  };
}

function refuseOthers({ method, layers, unknown }: LoraFormat, wanted: "lokr" | "loha", source: string): void {
  const other = layers.find((layer) => layer.method !== wanted);
  const odd = layers.flatMap(({ magnitude, bias, mid, down, up }) => magnitude ?? bias ?? mid ?? down ?? up ?? []);
  const text = layers.filter(({ part }) => part === "text_encoder_3").flatMap(({ tensors }) => tensors);
  const [first] = [...odd, ...unknown, ...text];
  if (!other && first === undefined) return;
  const what = other ? `"${other.name}" is ${other.method}` : `"${first}" is no tensor of it`;
  throw new FormatError(
    source,
    `is a mixture that is not supported: it holds ${method === "lokr" ? "LoKr" : "LoHa"}, and ${what}.`,
  );
}

function factoredLayer(
  { name, tensors: names, alpha }: LoraLayer,
  method: "lokr" | "loha",
  tensors: ReadonlyMap<string, Tensor>,
  settings: PeftSettings | undefined,
  source: string,
): FactoredLayer {
  const values = floatState(new Map(names.map((each) => [each, tensors.get(each)!])), source);
  const scalar = alpha === undefined ? undefined : values.get(alpha)!;
  if (scalar && scalar.size !== 1) {
    throw new FormatError(source, `"${alpha}" must be one number; it is [${scalar.shape.join(",")}].`);
  }
  const own = new Map<string, Tensor<"float32">>();
  for (const [each, value] of values) {
    if (each === alpha) continue;
    // PEFT may put the adapter's name behind.
    const end = each.split(".").findLast((part) => /^(lokr|hada)_/.test(part))!;
    if (own.has(end)) throw new FormatError(source, `the layer "${name}" has several tensors ${end}.`);
    own.set(end, value);
  }
  const factor = own.get(method === "loha" ? "hada_w1_b" : own.has("lokr_w2_b") ? "lokr_w2_b" : "lokr_w1_b");
  const rank = factor?.shape[0];
  if (rank === 0) throw new FormatError(source, `the layer "${name}" has factors of rank 0.`);
  const said = settings && (patternValue(settings.rank_pattern ?? {}, name, source) ?? settings.r);
  if (rank !== undefined && said !== undefined && said !== rank) {
    throw new FormatError(source, `its configuration says rank ${said} at "${name}", its tensors ${rank}.`);
  }
  const configured = settings && (patternValue(settings.alpha_pattern ?? {}, name, source) ?? settings.alpha);
  let scale = 1;
  if (scalar && rank !== undefined) scale = scalar.data[0]! / rank;
  else if (!scalar && configured !== undefined) scale = configured / (rank ?? said!);
  const asked = scalar ? scalar.data[0]! : said;
  const askedRank = rank === undefined && Number.isSafeInteger(asked) && asked! > 0 ? asked : undefined;
  return { name, tensors: own, rank, askedRank, scale };
}

/** Factors are kept as matrices in files; a convolution's last one has its kernel here. */
function shapedFor(layer: FactoredLayer, own: TargetLayer | undefined): FactoredLayer {
  if (!own) return layer;
  const isTucker = [...layer.tensors.keys()].some((end) => /_t[12]$/.test(end));
  if (isTucker) return layer;
  const { kernelSize: k } = own;
  const shaped = [...layer.tensors].map(([end, value]): [string, Tensor<"float32">] => {
    if (!/(^lokr_w2(_b)?|^hada_w[12]_b)$/.test(end)) return [end, value];
    const [rows = 0, columns = 0] = value.shape;
    const isFlat = value.shape.length === 2;
    if (own.kind === "convolution" && isFlat && columns % (k * k) === 0) {
      return [end, new Tensor("float32", [rows, columns / (k * k), k, k], value.data)];
    }
    const isLinear = own.kind === "linear" && value.shape.slice(2).every((size) => size === 1);
    return [end, isLinear && !isFlat ? new Tensor("float32", [rows, columns], value.data) : value];
  });
  return { ...layer, tensors: new Map(shaped) };
}

interface PartSettings {
  targets: readonly string[];
  dropout: number | undefined;
  written: AdapterConfig | undefined;
}

function partOf(
  method: "lokr" | "loha",
  layers: readonly FactoredLayer[],
  settings: PartSettings,
  source: string,
): AdapterPart {
  const state = new Map(
    layers.flatMap(({ name, tensors }) =>
      [...tensors].map(([end, value]): [string, Tensor<"float32">] => [`${name}.${end}`, value]),
    ),
  );
  const { written } = settings;
  const Config = method === "lokr" ? LoKrConfig : LoHaConfig;
  const agrees = written instanceof Config && layers.every((layer) => isAsWritten(layer, written));
  const options = optionsOf(layers, settings);
  if (layers.length === 0) return { config: new Config(options), state, layers: [] };
  if (method === "loha") {
    const useTucker = [...state.keys()].some((name) => name.endsWith(".hada_t1"));
    const config = agrees ? (written as LoHaConfig) : new LoHaConfig({ ...options, useTucker });
    return { config, state, layers: new LoHaAdapter(config, new Map()).withLayersOf(state, source).layers };
  }
  const bare = new LoKrAdapter(agrees ? (written as LoKrConfig) : new LoKrConfig(options), new Map());
  const { layers: found } = bare.withLayersOf(state, source);
  const config = agrees ? bare.config : new LoKrConfig({ ...options, ...splitting(found, layers, bare.config) });
  return { config, state, layers: found };
}

function isAsWritten({ name, rank, scale }: FactoredLayer, written: LowRankConfig): boolean {
  const said = written.scaleOf(name);
  return (rank === undefined || written.rankOf(name) === rank) && Math.abs(said - scale) <= 2 ** -21 * Math.abs(said);
}

/** What ranks and scales say. */
function optionsOf(layers: readonly FactoredLayer[], { targets, dropout }: PartSettings): LowRankOptions {
  const rank = mostFrequent(layers.flatMap((layer) => layer.rank ?? layer.askedRank ?? [])) ?? 1;
  const rankOf = (layer: FactoredLayer) => layer.rank ?? layer.askedRank ?? rank;
  const alphaOf = (layer: FactoredLayer) => rounded(layer.scale * rankOf(layer));
  const alpha = mostFrequent(layers.map(alphaOf).filter((value) => value > 0)) ?? rank;
  const differing = (of: (layer: FactoredLayer) => number, usual: number) =>
    Object.fromEntries(layers.filter((layer) => of(layer) !== usual).map((layer) => [layer.name, of(layer)]));
  return {
    ...{ rank, alpha },
    ...(dropout !== undefined && { dropout }),
    ...(targets.length > 0 && { targetModules: targets }),
    rankPattern: differing(rankOf, rank),
    alphaPattern: differing(alphaOf, alpha),
  };
}

/** Alphas went through a division; those of files are float32. */
const rounded = (value: number): number => Math.fround(Number(value.toPrecision(7)));

/** How LyCORIS was told to split the layers, so that fresh adapters of this configuration have the same shapes. */
function splitting(layers: readonly TargetLayer[], found: readonly FactoredLayer[], config: LoKrConfig) {
  const ends = found.map(({ tensors }) => tensors);
  const has = (end: string) => ends.some((tensors) => tensors.has(end));
  const flags = { decomposeBoth: has("lokr_w1_a"), useTucker: has("lokr_t2") };
  const small = ends.map((tensors) => (tensors.get("lokr_w1") ?? tensors.get("lokr_w1_a")!).shape[0]!);
  for (const factor of [-1, ...new Set(small.slice(0, 64))]) {
    for (const fullMatrix of [false, true]) {
      const options = { ...flags, factor, fullMatrix };
      const fits = layers.every((layer, i) => {
        const shapes = lokrShapes(layer, config.rankOf(layer.path), options);
        return [...shapes].every(([end, shape]) => ends[i]!.get(end)?.shape.join() === shape.join());
      });
      if (fits) return options;
    }
  }
  return flags;
}
