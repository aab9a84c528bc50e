// The safetensors format on bytes: header validation, decoding, encoding. Files are read in
// safetensors-source.ts and tensor-file.ts.
// Source of the layout: https://huggingface.co/docs/safetensors (8-byte little-endian header length, JSON, data).

import { FormatError } from "../errors.js";
import { float8ToFloat32 } from "../tensor/float8.js";
import { bfloat16ToFloat32 } from "../tensor/float16.js";
import { BYTES_PER_ELEMENT, type DType, fromBytes, sizeOf, Tensor, toBytes } from "../tensor/tensor.js";
import { kindOfFile } from "./file-descriptions.js";
import { isObject, parseJsonObject, quote } from "./json.js";

/** Bytes per element of every dtype name a header may carry, whether or not it can be decoded here. */
export const BYTES_PER_DTYPE = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  F8_E8M0: 1,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
} as const;

const DTYPE_NAMES: Record<DType, SafetensorsDType> = {
  float32: "F32",
  float16: "F16",
  int64: "I64",
  int32: "I32",
  bool: "BOOL",
};

/** A dtype name as in a safetensors header. */
export type SafetensorsDType = keyof typeof BYTES_PER_DTYPE;

/** Where one tensor's bytes lie. */
export interface SafetensorsEntry {
  dtype: SafetensorsDType;
  shape: number[];
  /** First byte: counted from the start of the data in a parsed header, from the start of the file in an opened file. */
  offset: number;
  /** Number of bytes. */
  length: number;
}

/** A validated header. */
export interface SafetensorsHeader {
  metadata: Record<string, string>;
  /** In the header's own order; offsets count from the first byte after the header. */
  entries: Map<string, SafetensorsEntry>;
}

/** A file on this machine whose header has been read and validated; its data has not been read. */
export interface OpenedSafetensors {
  /** As the caller named it. */
  source: string;
  /** Absolute path with symbolic links resolved. */
  path: string;
  metadata: Record<string, string>;
  /** By tensor name; `offset` is absolute in the file. */
  entries: Map<string, SafetensorsEntry>;
}

/** A file's content in memory. */
export interface Safetensors {
  tensors: Map<string, Tensor>;
  metadata: Record<string, string>;
}

/** Tensors by name, in either form that writers accept. */
export type NamedTensors = ReadonlyMap<string, Tensor> | Readonly<Record<string, Tensor>>;

/** Bytes before the header: its length as an unsigned 64-bit integer. */
export const SAFETENSORS_PREFIX_BYTES = 8;

/** The longest header that readers accept, the limit of the format's own implementation. */
export const SAFETENSORS_MAX_HEADER_BYTES = 100_000_000;

/**
 * Reads the header's length from a file's first 8 bytes.
 *
 * @param prefix - At least the first 8 bytes, fewer only if the file is shorter; more may tell what the file is instead.
 * @param fileLength - Bytes in the whole file.
 * @throws {FormatError} If the file is shorter than its header, or the header longer than 100 MB.
 */
export function safetensorsHeaderLength(prefix: Uint8Array, fileLength: number, source: string): number {
  if (prefix.length < SAFETENSORS_PREFIX_BYTES) {
    throw new FormatError(source, `a safetensors file has at least 8 bytes; got ${prefix.length}. Is it complete?`);
  }
  const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  if (length > BigInt(SAFETENSORS_MAX_HEADER_BYTES)) {
    const kind = kindOfFile(prefix);
    if (kind) throw new FormatError(source, `is no safetensors file but ${kind}.`);
    throw new FormatError(
      source,
      `the header may be at most ${SAFETENSORS_MAX_HEADER_BYTES} bytes; the first 8 bytes say ${length}. ` +
        "This is not a safetensors file, or it is damaged.",
    );
  }
  if (Number(length) > fileLength - SAFETENSORS_PREFIX_BYTES) {
    throw new FormatError(
      source,
      `the header should be ${length} bytes, but only ${fileLength - SAFETENSORS_PREFIX_BYTES} follow. ` +
        "The file is truncated; a whole copy is needed.",
    );
  }
  return Number(length);
}

/**
 * Parses and validates a header.
 *
 * Tensors must lie without holes or overlap, each as long as its shape and dtype say.
 *
 * @param headerBytes - The JSON, without the 8 bytes before it.
 * @param source - Names the file in errors.
 * @param dataLength - Bytes that follow the header; the tensors must fill them exactly. Unchecked when absent.
 * @throws {FormatError} If the header breaks any rule of the format.
 */
export function parseSafetensorsHeader(
  headerBytes: Uint8Array,
  source: string,
  dataLength?: number,
): SafetensorsHeader {
  const header = parseJsonObject(headerBytes, source);
  let metadata: Record<string, string> = {};
  const entries = new Map<string, SafetensorsEntry>();
  for (const [name, value] of Object.entries(header)) {
    if (name === "__metadata__") metadata = checkMetadata(value, source);
    else entries.set(name, parseEntry(name, value, source));
  }
  checkLayout(entries, source, dataLength);
  return { metadata, entries };
}

/**
 * Turns one tensor's bytes into a Tensor.
 *
 * BF16, F8_E4M3, F8_E5M2 and F64 become float32 (all but F64 exactly), F32, F16, I64, I32 and BOOL keep their type. Where alignment allows, the
 * tensor shares the bytes' memory.
 *
 * @throws {FormatError} If the dtype cannot be held by a Tensor, or a BOOL byte is neither 0 nor 1.
 */
export function decodeSafetensorsEntry(
  name: string,
  entry: SafetensorsEntry,
  bytes: Uint8Array,
  source: string,
): Tensor {
  const { dtype, shape } = entry;
  switch (dtype) {
    case "F32":
      return fromBytes("float32", shape, bytes);
    case "F16":
      return fromBytes("float16", shape, bytes);
    case "I64":
      return fromBytes("int64", shape, bytes);
    case "I32":
      return fromBytes("int32", shape, bytes);
    case "BF16":
      return new Tensor("float32", shape, bfloat16ToFloat32(fromBytes("float16", shape, bytes).data));
    case "F8_E4M3":
    case "F8_E5M2":
      return new Tensor("float32", shape, float8ToFloat32(bytes, dtype));
    case "F64": {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const values = new Float32Array(bytes.byteLength / 8);
      for (let i = 0; i < values.length; i++) values[i] = view.getFloat64(8 * i, true);
      return new Tensor("float32", shape, values);
    }
    case "BOOL": {
      const bad = bytes.findIndex((value) => value > 1);
      if (bad >= 0) {
        throw new FormatError(
          source,
          `${quote(name)} is BOOL, whose bytes are 0 or 1; element ${bad} is ${bytes[bad]}.`,
        );
      }
      return fromBytes("bool", shape, bytes);
    }
    default:
      throw new FormatError(
        source,
        `${quote(name)} has dtype ${dtype}, which is not supported; F32, F16, BF16, F8_E4M3, F8_E5M2, F64, I64, I32 and BOOL are.`,
      );
  }
}

/**
 * Decodes a whole safetensors file from memory.
 *
 * @param bytes - The file; tensors share its memory where alignment allows.
 * @param source - Names the file in errors.
 * @throws {FormatError} If the bytes break the format, or a dtype is not supported.
 */
export function decodeSafetensors(bytes: Uint8Array, source = "safetensors data"): Safetensors {
  const headerLength = safetensorsHeaderLength(bytes, bytes.length, source);
  const data = bytes.subarray(SAFETENSORS_PREFIX_BYTES + headerLength);
  const header = parseSafetensorsHeader(
    bytes.subarray(SAFETENSORS_PREFIX_BYTES, SAFETENSORS_PREFIX_BYTES + headerLength),
    source,
    data.length,
  );
  const tensors = new Map<string, Tensor>();
  for (const [name, entry] of header.entries) {
    const own = data.subarray(entry.offset, entry.offset + entry.length);
    tensors.set(name, decodeSafetensorsEntry(name, entry, own, source));
  }
  return { tensors, metadata: header.metadata };
}

/**
 * The parts of a safetensors file in file order: length and header first, then each tensor's bytes (not copied).
 *
 * Tensors are ordered by falling element size, then by name, so that every one is aligned; the header is padded with
 * spaces to a multiple of 8 bytes.
 *
 * @throws {FormatError} If a name is reserved, a value is not a Tensor, or a metadata value is not a string.
 */
export function safetensorsParts(
  tensors: NamedTensors,
  metadata: Readonly<Record<string, string>> = {},
  source = "safetensors data",
): Uint8Array[] {
  const named = [...(tensors instanceof Map ? tensors : Object.entries(tensors))] as [string, Tensor][];
  for (const [name, value] of named) {
    if (!(value instanceof Tensor)) throw new FormatError(source, `${quote(name)} is not a Tensor.`);
  }
  named.sort(
    ([nameA, a], [nameB, b]) =>
      BYTES_PER_ELEMENT[b.dtype] - BYTES_PER_ELEMENT[a.dtype] || (nameA < nameB ? -1 : nameA > nameB ? 1 : 0),
  );
  const head = safetensorsHead(
    named.map(([name, { dtype, shape }]) => ({ name, dtype: DTYPE_NAMES[dtype], shape })),
    metadata,
    source,
  );
  return [head, ...named.map(([, value]) => toBytes(value))];
}

/**
 * What stands before the data of a safetensors file: length and header, padded with spaces to a multiple of 8 bytes.
 *
 * @param tensors - In file order, without gaps.
 * @throws {FormatError} If a name is reserved, or a metadata value is not a string.
 */
export function safetensorsHead(
  tensors: Iterable<{ name: string; dtype: SafetensorsDType; shape: readonly number[] }>,
  metadata: Readonly<Record<string, string>> = {},
  source = "safetensors data",
): Uint8Array {
  const header: Record<string, unknown> = {};
  if (Object.keys(metadata).length > 0) header.__metadata__ = checkMetadata(metadata, source);
  let offset = 0;
  for (const { name, dtype, shape } of tensors) {
    checkName(name, source);
    if (name === "__metadata__") throw new FormatError(source, "a tensor may not be named __metadata__.");
    const end = offset + sizeOf(shape) * BYTES_PER_DTYPE[dtype];
    header[name] = { dtype, shape, data_offsets: [offset, end] };
    offset = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const length = Math.ceil(json.length / 8) * 8;
  const head = new Uint8Array(SAFETENSORS_PREFIX_BYTES + length).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(length), true);
  head.set(json, SAFETENSORS_PREFIX_BYTES);
  return head;
}

/**
 * Encodes tensors as a safetensors file in memory.
 *
 * @throws {FormatError} If a name is reserved, a value is not a Tensor, or a metadata value is not a string.
 */
export function encodeSafetensors(
  tensors: NamedTensors,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array<ArrayBuffer> {
  const parts = safetensorsParts(tensors, metadata);
  const result = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    result.set(part, offset);
    offset += part.length;
  }
  return result;
}

function checkName(name: string, source: string): void {
  if (name === "__proto__") throw new FormatError(source, `the name "__proto__" is not allowed.`);
}

function checkMetadata(value: unknown, source: string): Record<string, string> {
  if (!isObject(value)) throw new FormatError(source, "__metadata__ must be an object of strings.");
  const result: Record<string, string> = {};
  for (const [key, text] of Object.entries(value)) {
    checkName(key, source);
    if (typeof text !== "string") {
      throw new FormatError(source, `__metadata__ holds strings only; ${quote(key)} is ${typeof text}.`);
    }
    result[key] = text;
  }
  return result;
}

function parseEntry(name: string, value: unknown, source: string): SafetensorsEntry {
  checkName(name, source);
  const fail = (message: string): never => {
    throw new FormatError(source, `${quote(name)}: ${message}`);
  };
  if (!isObject(value)) return fail("a tensor's entry must be an object with dtype, shape and data_offsets.");
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== "string" || !Object.hasOwn(BYTES_PER_DTYPE, dtype)) {
    return fail(`unknown dtype ${JSON.stringify(dtype)?.slice(0, 100)}.`);
  }
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    return fail(`shape must be non-negative integers; got ${JSON.stringify(shape)?.slice(0, 100)}.`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount) || offsets[0]! > offsets[1]!) {
    return fail(
      `data_offsets must be two non-negative integers [begin, end]; got ${JSON.stringify(offsets)?.slice(0, 100)}.`,
    );
  }
  const [begin, end] = offsets as [number, number];
  const length = sizeOf(shape) * BYTES_PER_DTYPE[dtype as SafetensorsDType];
  if (length !== end - begin) {
    return fail(
      `${dtype} [${shape.join(",").slice(0, 100)}] takes ${length} bytes, but data_offsets span ${end - begin}.`,
    );
  }
  return { dtype: dtype as SafetensorsDType, shape, offset: begin, length };
}

function checkLayout(entries: Map<string, SafetensorsEntry>, source: string, dataLength: number | undefined): void {
  let position = 0;
  const sorted = [...entries].sort(([, a], [, b]) => a.offset - b.offset || a.length - b.length);
  for (const [name, entry] of sorted) {
    if (entry.offset < position) {
      throw new FormatError(
        source,
        `${quote(name)} begins at ${entry.offset}, inside the tensor before it (${position}).`,
      );
    }
    if (entry.offset > position) {
      throw new FormatError(
        source,
        `bytes ${position} to ${entry.offset}, before ${quote(name)}, belong to no tensor.`,
      );
    }
    position += entry.length;
    if (dataLength !== undefined && position > dataLength) {
      throw new FormatError(
        source,
        `${quote(name)} ends at byte ${position} of the data, which has only ${dataLength}. ` +
          "The file is truncated; a whole copy is needed.",
      );
    }
  }
  if (dataLength !== undefined && position !== dataLength) {
    throw new FormatError(source, `${dataLength - position} bytes after the last tensor belong to no tensor.`);
  }
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
