// Brings weights of any stored precision into the form models take them: float32, in place in a file wherever possible.
// Node only.

import { FormatError } from "../errors.js";
import { type ConvertedCopyOptions, convertedCopy } from "../storage/converted-weights.js";
import { checkShard, type PickledWeights } from "../storage/diffusers-folder.js";
import { withFile } from "../storage/file-access.js";
import { asFloat32, floatName } from "../storage/float32.js";
import { float32Chunks } from "../storage/float32-chunks.js";
import { decodeSafetensorsEntry, type SafetensorsEntry } from "../storage/safetensors.js";
import type { OpenedSafetensors } from "../storage/safetensors-file.js";
import { readTorch } from "../storage/torch-file.js";
import { type Tensor, toBytes } from "../tensor/tensor.js";
import type { LoadedWeight } from "./pretrained.js";

/** Weights by the name that their file gives them. */
export type LoadedWeights = Map<string, LoadedWeight>;

/** Below this, converting at every start costs less than a file. Counted in the original. */
const CACHED_BYTES = 2 ** 22;

/**
 * The floating-point tensors of a safetensors file as float32.
 *
 * Those of float32 stay where they are. Others are converted: once, into a cache, where they are many. Integers are
 * left out: position_ids of older text encoders, constants that the code knows.
 *
 * @param part - Takes only the tensors so named; `label` tells this choice from others of the same file.
 * @throws {FormatError} If the file cannot be read, or a tensor has a type that weights cannot have.
 */
export async function safetensorsWeights(
  { source, path, entries }: OpenedSafetensors,
  options: ConvertedCopyOptions = {},
  part?: { label: string; has(name: string): boolean },
): Promise<LoadedWeights> {
  const weights: LoadedWeights = new Map();
  const others: [string, SafetensorsEntry][] = [];
  const forms = new Set<string>();
  for (const [name, entry] of entries) {
    if (part && !part.has(name)) continue;
    const form = floatName(name, entry.dtype, source);
    if (form === undefined) continue;
    if (form === "float32") {
      weights.set(name, { shape: entry.shape, range: { path, offset: entry.offset, length: entry.length } });
      continue;
    }
    others.push([name, entry]);
    forms.add(form);
  }
  if (others.length === 0) return weights;
  if (others.reduce((sum, [, { length }]) => sum + length, 0) >= CACHED_BYTES) {
    const prepare = async () => ({
      form: [...forms].sort().join(" and "),
      tensors: others.map(([name, { shape }]) => ({ name, shape })),
      chunks: float32Chunks(path, others),
    });
    const copy = await convertedCopy(source, part?.label ?? "", prepare, options);
    if (copy) return new Map([...weights, ...inPlace(copy)]);
  }
  await withFile(path, async (file) => {
    for (const [name, entry] of others) {
      options.signal?.throwIfAborted();
      const decoded = decodeSafetensorsEntry(name, entry, await file.read(entry.offset, entry.length), path);
      weights.set(name, { shape: entry.shape, tensor: asFloat32(decoded)! });
    }
  });
  return weights;
}

/**
 * The tensors of a pickled state dict as float32; nothing in the pickle is executed.
 *
 * Large ones are read once, into a cache.
 *
 * @throws {FormatError} If the file holds anything but tensors, or not those that the index of its shards names.
 */
export async function pickledWeights(
  { path, tensors: expected }: PickledWeights,
  options: ConvertedCopyOptions = {},
): Promise<LoadedWeights> {
  let read: Map<string, Tensor<"float32">> | undefined;
  const load = async () => {
    read ??= await readPickle(path, expected);
    return read;
  };
  const sizeBytes = await withFile(path, async (file) => file.sizeBytes);
  if (sizeBytes >= CACHED_BYTES) {
    const prepare = async () => {
      const named = [...(await load())];
      return {
        form: "a pickle",
        tensors: named.map(([name, { shape }]) => ({ name, shape })),
        chunks: named.map(([, value]) => toBytes(value)),
      };
    };
    const copy = await convertedCopy(path, "", prepare, options);
    if (copy) return inPlace(copy);
  }
  return new Map([...(await load())].map(([name, value]) => [name, { shape: value.shape, tensor: value }]));
}

async function readPickle(
  path: string,
  expected: ReadonlySet<string> | undefined,
): Promise<Map<string, Tensor<"float32">>> {
  const tensors = await readTorch(path).catch((cause: unknown) => {
    if (!(cause instanceof FormatError)) throw cause;
    const message = cause.message.startsWith(`${path}: `) ? cause.message.slice(path.length + 2) : cause.message;
    throw new FormatError(
      path,
      `${message} Only pickles of plain tensors are read; convert this one to safetensors (diffusers: save_pretrained).`,
      { cause },
    );
  });
  if (expected) checkShard(path, path, expected, tensors.keys());
  const floats = new Map<string, Tensor<"float32">>();
  for (const [name, value] of tensors) {
    const converted = asFloat32(value);
    if (converted) floats.set(name, converted);
  }
  return floats;
}

function inPlace({ path, entries }: OpenedSafetensors): LoadedWeights {
  return new Map(
    [...entries].map(([name, { shape, offset, length }]) => [name, { shape, range: { path, offset, length } }]),
  );
}
