// Brings weights of any stored precision into the one that is asked for, in place in a file wherever possible.

import { ConfigError, FormatError } from "../errors.js";
import type { StoredType } from "../graph/index.js";
import {
  asFloat32,
  encodeFloats,
  type FileFloat,
  FLOAT_TYPES,
  type FloatType,
  floatChunks,
  floatName,
  rounded,
} from "../storage/float-weights.js";
import { checkShard, type PickledWeights } from "../storage/model-folder.js";
import { decodeSafetensorsEntry, type OpenedSafetensors, type SafetensorsEntry } from "../storage/safetensors.js";
import type { SafetensorsSource } from "../storage/safetensors-source.js";
import { readRequired, type Storage } from "../storage/storage.js";
import { decodeTorch } from "../storage/torch.js";
import type { Tensor } from "../tensor/tensor.js";
import { type FewBits, fewBitWeights, isLarge, shapeMetadata } from "./few-bits.js";
import { int8 } from "./int8-weights.js";
import type { LoadedWeights } from "./loaded-weights.js";
import { nf4 } from "./nf4-weights.js";

/**
 * How frozen weights can be kept. `auto`: as their file has them, float32 where that is neither float16 nor bfloat16, and bfloat16 where it
 * is float8, all of whose values that has. `int8`:
 * the large ones of a denoiser, T5 or Qwen3 as 8-bit integers that products of integers take, all else as in `auto`; `nf4`: these in 4 bits,
 * widened when they are used.
 */
export const WEIGHT_TYPES = [...FLOAT_TYPES, "int8", "nf4", "auto"] as const;

export type WeightType = (typeof WEIGHT_TYPES)[number];

/** The tensors of a file, by the names that it gives them. */
export interface LoadedFile {
  weights: LoadedWeights;
  /** Names of integers and booleans, whose values are not loaded. */
  integers: string[];
}

/** Some of a file's tensors. */
export interface FilePart {
  /** Tells this choice from others of the same file. */
  label: string;
  has(name: string): boolean;
}

/** How a file's tensors are loaded. */
export interface LoadingOptions {
  part?: FilePart | undefined;
  dtype?: WeightType | undefined;
  dryRun?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

/** Below this, converting at every start costs less than a file. Counted in the original. */
const CACHED_BYTES = 2 ** 22;
/** Tells copies of other choices of weights apart: raised when `isLarge` changes. */
const CHOICE = 3;
/** Where a copy says which of the original's tensors it leaves out. */
const INTEGERS = "integers";

/**
 * The floating-point tensors of a safetensors file.
 *
 * On this machine, those of the precision that is asked for stay where they are. Others are converted: once, into a cache,
 * where they are many. What is held in memory is float32, rounded to that precision.
 *
 * @param options.dtype - Default `float32`.
 * @param options.part - Takes only these tensors.
 * @param options.dryRun - Reads and converts nothing: the weights have shapes only.
 * @throws {FormatError} If the file cannot be read, or a tensor has a type that weights cannot have.
 */
export async function loadSafetensors(
  storage: Storage,
  opened: SafetensorsSource,
  { part, dtype = "float32", dryRun = false, signal }: LoadingOptions = {},
): Promise<LoadedFile> {
  const { source, path, entries } = opened;
  if (dtype === "int8" || dtype === "nf4") return loadFewBits(storage, opened, dtype, { part, dryRun, signal });
  const weights: LoadedWeights = new Map();
  const integers: string[] = [];
  const others: string[] = [];
  const forms = new Set<string>();
  for (const [name, { dtype: written, shape, offset, length }] of entries) {
    if (part && !part.has(name)) continue;
    const form = floatName(name, written, source);
    if (form === undefined) integers.push(name);
    else if (dryRun || (path !== undefined && form === (dtype === "auto" && isKept(form) ? form : dtype))) {
      weights.set(name, { shape, range: { path: path ?? source, offset, length, ...storedAs(form) } });
    } else {
      others.push(name);
      forms.add(form);
    }
  }
  if (others.length === 0) return { weights, integers };
  // bfloat16 has every value of both types of 8 bits.
  const isFloat8 = forms.size === 1 && forms.has("float8");
  const to = dtype !== "auto" ? dtype : isFloat8 ? "bfloat16" : "float32";
  const sizeBytes = others.reduce((sum, name) => sum + entries.get(name)!.length, 0);
  if (storage.local && sizeBytes >= CACHED_BYTES) {
    const chosen = others.map((name) => [name, entries.get(name)!] as const);
    const read = (offset: number, length: number) => readRequired(storage, opened.name, { offset, length });
    const prepare = async () => ({
      form: [...forms].sort().join(" and "),
      tensors: chosen.map(([name, { shape }]) => ({ name, shape })),
      chunks: floatChunks(source, chosen, read, to),
    });
    const copy = await storage.local.convertedCopy(opened.name, part?.label ?? "", prepare, to);
    if (copy) return { weights: new Map([...weights, ...inPlace(copy)]), integers };
  }
  for await (const [name, bytes] of opened.read(others)) {
    signal?.throwIfAborted();
    const entry = entries.get(name)!;
    const tensor = rounded(asFloat32(decodeSafetensorsEntry(name, entry, bytes, source))!, to);
    weights.set(name, { shape: entry.shape, tensor });
  }
  return { weights, integers };
}

/** The weights that are kept in few bits out of the cache, made once; all others as their file has them. */
async function loadFewBits(
  storage: Storage,
  opened: SafetensorsSource,
  dtype: "int8" | "nf4",
  { part, dryRun, signal }: LoadingOptions,
): Promise<LoadedFile> {
  const { source, name: file, entries } = opened;
  // Without a cache nothing is rounded.
  const kind = dtype === "int8" ? int8(storage.local?.int8Range() ?? 0) : nf4;
  const chosen = [...entries].filter(
    ([name, { dtype: written, shape }]) =>
      (part?.has(name) ?? true) &&
      floatName(name, written, source) !== undefined &&
      isLarge(name, shape) &&
      kind.fits(shape),
  );
  const names = new Set(chosen.map(([name]) => name));
  const rest: FilePart = {
    label: `${part?.label ?? ""} rest`,
    has: (name) => (part?.has(name) ?? true) && (dryRun || !names.has(name)),
  };
  const loaded = await loadSafetensors(storage, opened, { part: rest, dtype: "auto", dryRun, signal });
  if (dryRun || chosen.length === 0) return loaded;
  if (!storage.local) {
    throw new ConfigError(
      `dtype: ${dtype} needs a cache on this machine; ${source} is none of its files. Leave dtype out.`,
    );
  }
  const shapes = chosen.map(([name, { shape }]) => [name, shape] as const);
  const prepare = async () => ({
    form: [...new Set(chosen.map(([name, entry]) => floatName(name, entry.dtype, source)))].sort().join(" and "),
    metadata: shapeMetadata(shapes),
    tensors: shapes.flatMap(([name, shape]) => kind.tensors(name, shape)),
    chunks: chunksOf(storage, opened, chosen, kind),
  });
  const label = `${part?.label ?? ""} ${CHOICE}${kind.detail}`;
  const copy = await storage.local.convertedCopy(file, label, prepare, dtype);
  if (!copy) {
    throw new ConfigError(
      `dtype: ${dtype} needs a copy of ${source} in the cache, which could not be written. Make room, set FERA_CACHE, or leave dtype out.`,
    );
  }
  for (const [name, shape, range] of fewBitWeights(kind, copy)) loaded.weights.set(name, { shape, range });
  return loaded;
}

async function* chunksOf(
  storage: Storage,
  { source, name: file }: SafetensorsSource,
  chosen: readonly (readonly [name: string, entry: SafetensorsEntry])[],
  kind: FewBits,
): AsyncGenerator<Uint8Array> {
  for (const [name, entry] of chosen) {
    const { offset, length, shape } = entry;
    const bytes = await readRequired(storage, file, { offset, length });
    const values = asFloat32(decodeSafetensorsEntry(name, entry, bytes, source))!.data;
    yield* kind.bytes(name, values, shape);
  }
}

/**
 * The tensors of a pickled state dict; nothing in the pickle is executed.
 *
 * On this machine, large ones are read once, into a cache.
 *
 * @throws {FormatError} If the file holds anything but tensors, or not those that the index of its shards names.
 */
export async function loadPickled(
  storage: Storage,
  { name, path, tensors: expected }: PickledWeights,
  { dtype = "float32" }: Pick<LoadingOptions, "dtype"> = {},
): Promise<LoadedFile> {
  if (dtype === "int8" || dtype === "nf4") {
    throw new ConfigError(
      `dtype: ${dtype} needs weights in safetensors; ${path} is a pickle. Convert it (diffusers: save_pretrained), or leave dtype out.`,
    );
  }
  const to = dtype === "auto" ? "float32" : dtype;
  let read: PickledFile | undefined;
  const load = async () => {
    read ??= readPickle(await readRequired(storage, name), path, expected);
    return read;
  };
  if (storage.local && ((await storage.size(name)) ?? 0) >= CACHED_BYTES) {
    const prepare = async () => {
      const { floats: named, integers } = await load();
      const floats = [...named];
      return {
        form: "a pickle",
        metadata: { [INTEGERS]: JSON.stringify(integers) },
        tensors: floats.map(([tensor, { shape }]) => ({ name: tensor, shape })),
        chunks: encoded(floats, to),
      };
    };
    const copy = await storage.local.convertedCopy(name, INTEGERS, prepare, to);
    if (copy) return { weights: inPlace(copy), integers: JSON.parse(copy.metadata[INTEGERS] ?? "[]") as string[] };
  }
  const { floats, integers } = await load();
  return {
    weights: new Map(
      [...floats].map(([tensor, value]) => [tensor, { shape: value.shape, tensor: rounded(value, to) }]),
    ),
    integers,
  };
}

function* encoded(floats: Iterable<readonly [string, Tensor<"float32">]>, to: FloatType): Generator<Uint8Array> {
  for (const [, value] of floats) yield encodeFloats(value, to);
}

interface PickledFile {
  floats: Map<string, Tensor<"float32">>;
  integers: string[];
}

function readPickle(bytes: Uint8Array, path: string, expected: ReadonlySet<string> | undefined): PickledFile {
  let tensors: Map<string, Tensor>;
  try {
    tensors = decodeTorch(bytes, path);
  } catch (cause) {
    if (!(cause instanceof FormatError)) throw cause;
    const message = cause.message.startsWith(`${path}: `) ? cause.message.slice(path.length + 2) : cause.message;
    throw new FormatError(
      path,
      `${message} Only pickles of plain tensors are read; convert this one to safetensors (diffusers: save_pretrained).`,
      { cause },
    );
  }
  if (expected) checkShard(path, path, expected, tensors.keys());
  const floats = new Map<string, Tensor<"float32">>();
  const integers: string[] = [];
  for (const [name, value] of tensors) {
    const converted = asFloat32(value);
    if (converted) floats.set(name, converted);
    else integers.push(name);
  }
  return { floats, integers };
}

function inPlace({ path, entries }: OpenedSafetensors): LoadedWeights {
  return new Map(
    [...entries].map(([name, { dtype, shape, offset, length }]) => [
      name,
      { shape, range: { path, offset, length, ...storedAs(floatName(name, dtype, path)) } },
    ]),
  );
}

/** Whether weights can stay in their file as they are. */
const isKept = (form: FileFloat): form is FloatType => form !== "float64" && form !== "float8";

/** What a range of a file says of its numbers. */
const storedAs = (form: string | undefined): { stored?: StoredType } =>
  form === "float16" || form === "bfloat16" ? { stored: form } : {};
