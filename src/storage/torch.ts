// State dicts in the zip format of torch.save, on bytes: decoding without executing anything, and encoding.
// Files are read and written in tensor-file.ts; the pickle inside is read by pickle.ts.
// Source of the layout: PyTorch's torch/serialization.py and torch/_utils.py.

import { unzipSync, zipSync } from "fflate";
import { FormatError } from "../errors.js";
import { type DType, sizeOf, Tensor, toBytes } from "../tensor/tensor.js";
import { kindOfFile } from "./file-descriptions.js";
import { PickleGlobal, PickleTuple, unpickle } from "./pickle.js";
import { PickleWriter } from "./pickle-writer.js";
import { decodeSafetensorsEntry, type NamedTensors, type SafetensorsDType } from "./safetensors.js";

const STORAGES: Record<string, { dtype: SafetensorsDType; width: number }> = {
  "torch.FloatStorage": { dtype: "F32", width: 4 },
  "torch.HalfStorage": { dtype: "F16", width: 2 },
  "torch.BFloat16Storage": { dtype: "BF16", width: 2 },
  "torch.DoubleStorage": { dtype: "F64", width: 8 },
  "torch.LongStorage": { dtype: "I64", width: 8 },
  "torch.IntStorage": { dtype: "I32", width: 4 },
  "torch.BoolStorage": { dtype: "BOOL", width: 1 },
};

const STORAGE_OF: Record<DType, string> = {
  float32: "FloatStorage",
  float16: "HalfStorage",
  int64: "LongStorage",
  int32: "IntStorage",
  bool: "BoolStorage",
};

/** Every record of a torch zip begins at a multiple of this, so that it can be mapped into memory. */
const ALIGNMENT = 64;
/** The id of the extra field that pads a record, as torch writes it ("FB"). */
const PADDING_FIELD = 0x4246;
/** Copies (of strided tensors, of dtypes that are converted) may take this many times the file's size together. */
const COPY_LIMIT = 8;

/** One `data/N` record, typed. */
class TorchStorage {
  constructor(
    readonly key: string,
    readonly dtype: SafetensorsDType,
    readonly width: number,
    readonly bytes: Uint8Array,
  ) {}

  get length(): number {
    return this.bytes.length / this.width;
  }
}

/**
 * Decodes a state dict that torch.save wrote (the zip format, PyTorch 1.6 and later).
 *
 * BFloat16 and Double become float32; Float, Half, Long, Int and Bool keep their type. Strided tensors are made
 * contiguous. Parameters become plain tensors.
 *
 * @param source - Names the file in errors.
 * @returns The tensors by key, in the file's order.
 * @throws {FormatError} If the bytes are damaged, refer to any Python object beyond tensors and dicts (by its name), or
 *   hold something other than one flat dict of tensors.
 */
export function decodeTorch(bytes: Uint8Array, source = "torch data"): Map<string, Tensor> {
  const dict = decodeTorchDict(bytes, source);
  const tensors = new Map<string, Tensor>();
  for (const [name, value] of dict) {
    if (typeof name !== "string" || name === "__proto__") {
      throw new FormatError(source, `the keys of a state dict are names; got ${describeValue(name)}.`);
    }
    if (!(value instanceof Tensor)) {
      throw new FormatError(
        source,
        `a state dict holds tensors only; ${JSON.stringify(name.slice(0, 200))} is ${describeValue(value)}. ` +
          "If this is a whole training checkpoint, save its state dict alone.",
      );
    }
    tensors.set(name, value);
  }
  return tensors;
}

/**
 * As {@link decodeTorch}, of a dict of anything that can be read: also numbers, texts and dicts.
 *
 * @throws {FormatError} If the bytes are damaged, refer to any other Python object (by its name), or hold no dict.
 */
export function decodeTorchDict(bytes: Uint8Array, source = "torch data"): Map<unknown, unknown> {
  const archive = openArchive(bytes, source);
  const dict = unpickle(archive.pickle, torchContext(archive.records, bytes.length, source), source);
  if (dict instanceof Map) return dict;
  throw new FormatError(source, `must hold a state dict; it holds ${describeValue(dict)}. Save model.state_dict().`);
}

/**
 * Encodes tensors as torch.save would an OrderedDict of them; `torch.load(path, weights_only=True)` reads it.
 *
 * The same tensors give the same bytes.
 *
 * @throws {FormatError} If a value is not a Tensor, or the file would have 4 GiB or 65,536 records (use safetensors).
 */
export function encodeTorch(tensors: NamedTensors, source = "torch data"): Uint8Array {
  const named = [...(tensors instanceof Map ? tensors : Object.entries(tensors))] as [string, Tensor][];
  for (const [name, value] of named) {
    if (name === "__proto__") throw new FormatError(source, 'the name "__proto__" is not allowed.');
    if (!(value instanceof Tensor)) throw new FormatError(source, `${JSON.stringify(name)} is not a Tensor.`);
  }
  const tooLarge = () =>
    new FormatError(source, "a .pt file is limited to 4 GiB and 65,535 records here; write .safetensors instead.");
  if (named.length + 3 > 0xffff) throw tooLarge();
  const text = new TextEncoder();
  const records: [string, Uint8Array][] = [
    ["archive/data.pkl", pickleStateDict(named)],
    ["archive/byteorder", text.encode("little")],
    ...named.map(([, value], index): [string, Uint8Array] => [`archive/data/${index}`, toBytes(value)]),
    ["archive/version", text.encode("3\n")],
  ];
  const files: Parameters<typeof zipSync>[0] = {};
  let offset = 0;
  let directory = 0;
  for (const [name, data] of records) {
    const start = offset + 30 + name.length + 4;
    const padding = new Uint8Array((ALIGNMENT - (start % ALIGNMENT)) % ALIGNMENT).fill(0x5a);
    files[name] = [data, { extra: { [PADDING_FIELD]: padding } }];
    offset = start + padding.length + data.length;
    directory += 46 + name.length + 4 + padding.length;
  }
  if (offset + directory > 0xffffffff) throw tooLarge();
  return zipSync(files, { level: 0, mtime: new Date(1980, 0, 1) });
}

function openArchive(bytes: Uint8Array, source: string): { pickle: Uint8Array; records: Map<string, Uint8Array> } {
  if (bytes[0] === 0x80 && bytes[1] === 0x02) {
    throw new FormatError(
      source,
      "is a bare pickle (torch.save before 1.6). Load and save it again with a newer PyTorch.",
    );
  }
  const sizes = new Map<string, number>();
  let total = 0;
  let files: Record<string, Uint8Array>;
  try {
    files = unzipSync(bytes, {
      filter: ({ name, compression, originalSize }) => {
        const shown = JSON.stringify(name.slice(0, 200));
        if (compression !== 0) throw new FormatError(source, `record ${shown} is compressed; torch never does that.`);
        if (sizes.has(name) || name === "__proto__") throw new FormatError(source, `record ${shown} is there twice.`);
        total += originalSize;
        if (total > bytes.length) throw new FormatError(source, `record ${shown} overlaps others or is truncated.`);
        sizes.set(name, originalSize);
        return true;
      },
    });
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    const kind = bytes[0] === 0x50 && bytes[1] === 0x4b ? undefined : kindOfFile(bytes);
    const reason = kind ? `it is ${kind}` : (cause as Error).message;
    throw new FormatError(source, `is not a complete zip file as torch.save writes: ${reason}.`, { cause });
  }
  for (const [name, size] of sizes) {
    if (files[name]?.length !== size) throw new FormatError(source, `record ${JSON.stringify(name)} is truncated.`);
  }
  const found = [...sizes.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (found.length !== 1) {
    throw new FormatError(source, `must hold one data.pkl, as torch.save writes it; found ${found.length}.`);
  }
  const prefix = found[0]!.slice(0, -"data.pkl".length);
  const order = files[`${prefix}byteorder`];
  if (order && new TextDecoder().decode(order) !== "little") {
    throw new FormatError(source, "was saved on a big-endian machine, which is not supported.");
  }
  const records = new Map<string, Uint8Array>();
  for (const name of sizes.keys()) {
    if (name.startsWith(`${prefix}data/`)) records.set(name.slice(`${prefix}data/`.length), files[name]!);
  }
  return { pickle: files[found[0]!]!, records };
}

function torchContext(records: Map<string, Uint8Array>, fileLength: number, source: string) {
  const storages = new Map<string, TorchStorage>();
  let copyBudget = COPY_LIMIT * fileLength;
  const fail = (message: string): never => {
    throw new FormatError(source, message);
  };

  const persistentLoad = (id: unknown): TorchStorage => {
    const [kind, type, key, , length] = id instanceof PickleTuple ? id.items : [];
    if (kind !== "storage" || !(type instanceof PickleGlobal) || typeof key !== "string" || !isCount(length)) {
      return fail("refers to a storage in a form that is not known here.");
    }
    const spec = STORAGES[type.name] ?? fail(`${type.name} is not a storage.`);
    const known = storages.get(key);
    if (known && known.dtype !== spec.dtype) fail(`storage ${key} is used with two dtypes.`);
    const bytes = records.get(key) ?? fail(`storage ${JSON.stringify(key.slice(0, 100))} is missing.`);
    if (bytes.length !== length * spec.width) {
      fail(`storage ${key} should have ${length} elements of ${spec.width} bytes; it has ${bytes.length} bytes.`);
    }
    const storage = known ?? new TorchStorage(key, spec.dtype, spec.width, bytes);
    storages.set(key, storage);
    return storage;
  };

  const rebuildTensor = (args: readonly unknown[]): Tensor => {
    const [storage, offset, size, stride] = args;
    const shape = size instanceof PickleTuple ? size.items : undefined;
    const strides = stride instanceof PickleTuple ? stride.items : undefined;
    if (
      !(storage instanceof TorchStorage) ||
      !isCount(offset) ||
      !shape?.every(isCount) ||
      !strides?.every(isCount) ||
      shape.length !== strides.length
    ) {
      return fail("describes a tensor with a wrong storage, offset, size or stride.");
    }
    const count = sizeOf(shape);
    const last = count === 0 ? offset - 1 : shape.reduce((sum, n, i) => sum + (n - 1) * strides[i]!, offset);
    if (last >= storage.length || count > storage.length) {
      fail(
        `a tensor of size [${shape.join(",").slice(0, 100)}] and stride [${strides.join(",").slice(0, 100)}] at offset ` +
          `${offset} does not fit into storage ${storage.key} of ${storage.length} elements. ` +
          "If it was expanded, call contiguous() on it before saving.",
      );
    }
    const contiguous = isContiguous(shape, strides);
    if (!contiguous || storage.dtype === "BF16" || storage.dtype === "F64") {
      copyBudget -= count * Math.max(storage.width, 4);
      if (copyBudget < 0) fail("its tensors share storages so often that they would fill the memory.");
    }
    const bytes = contiguous
      ? storage.bytes.subarray(offset * storage.width, (offset + count) * storage.width)
      : gather(storage, offset, shape, strides);
    return decodeSafetensorsEntry(
      `storage ${storage.key}`,
      { dtype: storage.dtype, shape: [...shape], offset: 0, length: bytes.length },
      bytes,
      source,
    );
  };

  const callables: [string, ((args: readonly unknown[]) => unknown) | undefined][] = [
    [
      "collections.OrderedDict",
      (args) => (args.length === 0 ? new Map() : fail("builds a dict in a way not known here.")),
    ],
    ["torch._utils._rebuild_tensor_v2", rebuildTensor],
    [
      "torch._utils._rebuild_parameter",
      ([data]) => (data instanceof Tensor ? data : fail("makes a parameter of something that is not a tensor.")),
    ],
    ...Object.keys(STORAGES).map((name): [string, undefined] => [name, undefined]),
  ];
  return { globals: new Map(callables.map(([name, call]) => [name, new PickleGlobal(name, call)])), persistentLoad };
}

/** Row-major without gaps; the stride of a dimension of one element says nothing. */
function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  if (shape.includes(0)) return true;
  let expected = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== expected) return false;
    expected *= shape[i]!;
  }
  return true;
}

/** Copies a strided tensor's elements into row-major order. */
function gather(
  storage: TorchStorage,
  offset: number,
  shape: readonly number[],
  strides: readonly number[],
): Uint8Array {
  const { width, bytes } = storage;
  const count = sizeOf(shape);
  const result = new Uint8Array(count * width);
  const index = new Array<number>(shape.length).fill(0);
  let from = offset;
  for (let to = 0; to < count; to++) {
    for (let byte = 0; byte < width; byte++) result[to * width + byte] = bytes[from * width + byte]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      from -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
  return result;
}

function pickleStateDict(named: readonly [string, Tensor][]): Uint8Array {
  const pickle = new PickleWriter();
  pickle.orderedDict(() => {
    for (const [index, [name, value]] of named.entries()) {
      const strides = value.shape.map((_, axis) => sizeOf(value.shape.slice(axis + 1)));
      pickle.text(name);
      pickle.global("torch._utils", "_rebuild_tensor_v2");
      pickle.tuple(() => {
        pickle.tuple(() => {
          pickle.text("storage");
          pickle.global("torch", STORAGE_OF[value.dtype]);
          pickle.text(String(index));
          pickle.text("cpu");
          pickle.integer(value.size);
        });
        pickle.persistentId();
        pickle.integer(0);
        pickle.integers(value.shape);
        pickle.integers(strides);
        pickle.boolean(false);
        pickle.orderedDict();
      });
      pickle.reduce();
    }
  });
  return pickle.finish();
}

function describeValue(value: unknown): string {
  if (value === null) return "None";
  if (value instanceof Map) return "a dict";
  if (value instanceof Tensor) return "a tensor";
  if (value instanceof PickleTuple) return "a tuple";
  if (Array.isArray(value)) return "a list";
  if (value instanceof PickleGlobal) return value.name;
  return typeof value === "object" ? "a storage" : `the ${typeof value} ${String(value).slice(0, 100)}`;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
