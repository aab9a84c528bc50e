// Files of a cache: records one after the other, each a whole safetensors file behind its key and its checksum. A record that
// was cut off or has changed on disk is noticed; what comes before it stays usable. Node only.
//
// A record, numbers little-endian: "feraent1", key (32 bytes), length of the content in bytes (unsigned 64 bits), SHA-256 of
// key and content (32 bytes), content.

import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { decodeSafetensors, safetensorsParts } from "../../storage/safetensors.js";
import type { Tensor } from "../../tensor/tensor.js";

const MAGIC = new TextEncoder().encode("feraent1");
const KEY_BYTES = 32;
const LENGTH_AT = MAGIC.length + KEY_BYTES;
const DIGEST_AT = LENGTH_AT + 8;
const HEAD_BYTES = DIGEST_AT + 32;
/** Longer than any content: latents of one image, or states of one caption. */
const MAX_CONTENT_BYTES = 2 ** 30;

/** What an entry holds. */
export type EntryTensors = ReadonlyMap<string, Tensor>;

/** Where a record's content lies. */
export interface EntryPlace {
  offset: number;
  length: number;
  /** SHA-256 of key and content, in hexadecimal digits. */
  digest: string;
}

/** @param key - 64 hexadecimal digits. @returns The bytes of a record, in parts. */
export function encodeEntry(key: string, tensors: EntryTensors): { parts: Uint8Array[]; place: EntryPlace } {
  const content = safetensorsParts(tensors);
  const length = content.reduce((sum, part) => sum + part.length, 0);
  const head = new Uint8Array(HEAD_BYTES);
  head.set(MAGIC);
  head.set(Buffer.from(key, "hex"), MAGIC.length);
  new DataView(head.buffer).setBigUint64(LENGTH_AT, BigInt(length), true);
  const digest = digestOf(key, content);
  head.set(Buffer.from(digest, "hex"), DIGEST_AT);
  return { parts: [head, ...content], place: { offset: HEAD_BYTES, length, digest } };
}

/**
 * Where the contents of a file's records lie, by key. Ends, without complaint, at what is no whole record: the process
 * that wrote it was killed. Contents are not read.
 */
export async function scanEntries(path: string): Promise<Map<string, EntryPlace>> {
  const places = new Map<string, EntryPlace>();
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const head = new Uint8Array(HEAD_BYTES);
    for (let at = 0; at + HEAD_BYTES <= size; ) {
      await file.read(head, 0, HEAD_BYTES, at);
      if (!MAGIC.every((byte, i) => head[i] === byte)) break;
      const length = Number(new DataView(head.buffer).getBigUint64(LENGTH_AT, true));
      const offset = at + HEAD_BYTES;
      if (length > MAX_CONTENT_BYTES || offset + length > size) break;
      const key = Buffer.from(head.subarray(MAGIC.length, LENGTH_AT)).toString("hex");
      places.set(key, { offset, length, digest: Buffer.from(head.subarray(DIGEST_AT)).toString("hex") });
      at = offset + length;
    }
  } finally {
    await file.close();
  }
  return places;
}

/** Reads a record's content; undefined where it is not what was written. */
export async function readEntry(file: FileHandle, key: string, place: EntryPlace): Promise<EntryTensors | undefined> {
  const bytes = new Uint8Array(place.length);
  const { bytesRead } = await file.read(bytes, 0, bytes.length, place.offset);
  if (bytesRead < bytes.length || digestOf(key, [bytes]) !== place.digest) return undefined;
  return decodeSafetensors(bytes, "cache").tensors;
}

function digestOf(key: string, content: readonly Uint8Array[]): string {
  const hash = createHash("sha256").update(key);
  for (const part of content) hash.update(part);
  return hash.digest("hex");
}
