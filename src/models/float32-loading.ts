// Brings weights of any stored precision into the form models take them: float32, in place in a file wherever possible.

import { FormatError } from "../errors.js";
import { asFloat32, float32Chunks, floatName } from "../storage/float32-weights.js";
import { checkShard, type PickledWeights } from "../storage/model-folder.js";
import { decodeSafetensorsEntry, type OpenedSafetensors } from "../storage/safetensors.js";
import type { SafetensorsSource } from "../storage/safetensors-source.js";
import { readRequired, type Storage } from "../storage/storage.js";
import { decodeTorch } from "../storage/torch.js";
import { type Tensor, toBytes } from "../tensor/tensor.js";
import type { LoadedWeights } from "./loaded-weights.js";

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

/** Below this, converting at every start costs less than a file. Counted in the original. */
const CACHED_BYTES = 2 ** 22;
/** Where a copy says which of the original's tensors it leaves out. */
const INTEGERS = "integers";

/**
 * The floating-point tensors of a safetensors file as float32.
 *
 * On this machine, those of float32 stay where they are. Others are converted: once, into a cache, where they are many.
 *
 * @param options.part - Takes only these tensors.
 * @param options.dryRun - Reads and converts nothing: the weights have shapes only.
 * @throws {FormatError} If the file cannot be read, or a tensor has a type that weights cannot have.
 */
export async function loadSafetensors(
  storage: Storage,
  opened: SafetensorsSource,
  { part, dryRun = false, signal }: { part?: FilePart; dryRun?: boolean; signal?: AbortSignal } = {},
): Promise<LoadedFile> {
  const { source, path, entries } = opened;
  const weights: LoadedWeights = new Map();
  const integers: string[] = [];
  const others: string[] = [];
  const forms = new Set<string>();
  for (const [name, { dtype, shape, offset, length }] of entries) {
    if (part && !part.has(name)) continue;
    const form = floatName(name, dtype, source);
    if (form === undefined) integers.push(name);
    else if (dryRun || (path !== undefined && form === "float32")) {
      weights.set(name, { shape, range: { path: path ?? source, offset, length } });
    } else {
      others.push(name);
      forms.add(form);
    }
  }
  if (others.length === 0) return { weights, integers };
  const sizeBytes = others.reduce((sum, name) => sum + entries.get(name)!.length, 0);
  if (storage.local && sizeBytes >= CACHED_BYTES) {
    const chosen = others.map((name) => [name, entries.get(name)!] as const);
    const read = (offset: number, length: number) => readRequired(storage, opened.name, { offset, length });
    const copy = await storage.local.convertedCopy(opened.name, part?.label ?? "", async () => ({
      form: [...forms].sort().join(" and "),
      tensors: chosen.map(([name, { shape }]) => ({ name, shape })),
      chunks: float32Chunks(source, chosen, read),
    }));
    if (copy) return { weights: new Map([...weights, ...inPlace(copy)]), integers };
  }
  for await (const [name, bytes] of opened.read(others)) {
    signal?.throwIfAborted();
    const entry = entries.get(name)!;
    weights.set(name, { shape: entry.shape, tensor: asFloat32(decodeSafetensorsEntry(name, entry, bytes, source))! });
  }
  return { weights, integers };
}

/**
 * The tensors of a pickled state dict as float32; nothing in the pickle is executed.
 *
 * On this machine, large ones are read once, into a cache.
 *
 * @throws {FormatError} If the file holds anything but tensors, or not those that the index of its shards names.
 */
export async function loadPickled(
  storage: Storage,
  { name, path, tensors: expected }: PickledWeights,
): Promise<LoadedFile> {
  let read: PickledFile | undefined;
  const load = async () => {
    read ??= readPickle(await readRequired(storage, name), path, expected);
    return read;
  };
  if (storage.local && ((await storage.size(name)) ?? 0) >= CACHED_BYTES) {
    const copy = await storage.local.convertedCopy(name, INTEGERS, async () => {
      const { floats: named, integers } = await load();
      const floats = [...named];
      return {
        form: "a pickle",
        metadata: { [INTEGERS]: JSON.stringify(integers) },
        tensors: floats.map(([tensor, { shape }]) => ({ name: tensor, shape })),
        chunks: floats.map(([, value]) => toBytes(value)),
      };
    });
    if (copy) return { weights: inPlace(copy), integers: JSON.parse(copy.metadata[INTEGERS] ?? "[]") as string[] };
  }
  const { floats, integers } = await load();
  return {
    weights: new Map([...floats].map(([tensor, value]) => [tensor, { shape: value.shape, tensor: value }])),
    integers,
  };
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
    [...entries].map(([name, { shape, offset, length }]) => [name, { shape, range: { path, offset, length } }]),
  );
}
