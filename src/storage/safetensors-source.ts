// A safetensors file in a storage: its header, and the tensors that are asked for.

import { FILE_KIND_BYTES } from "./file-descriptions.js";
import {
  parseSafetensorsHeader,
  SAFETENSORS_PREFIX_BYTES,
  type SafetensorsEntry,
  safetensorsHeaderLength,
} from "./safetensors.js";
import { type ByteRange, readRequired, type Storage } from "./storage.js";

/** A file whose header has been read and validated. */
export interface SafetensorsSource {
  /** In the storage. */
  name: string;
  /** As messages name it. */
  source: string;
  /** On this machine: the absolute path with links resolved, whose data can be used in place. */
  path: string | undefined;
  metadata: Record<string, string>;
  /** By tensor name; `offset` is absolute in the file. */
  entries: Map<string, SafetensorsEntry>;
  /** The bytes of tensors, in the file's order; neighbours are read together. */
  read(names: Iterable<string>): AsyncGenerator<[name: string, bytes: Uint8Array]>;
  /** The same file with its bytes under other names, in other shapes, or in parts. @param entries - With offsets in the file. */
  withEntries(entries: Map<string, SafetensorsEntry>): SafetensorsSource;
}

/** Neighbouring tensors are read together up to so many bytes. */
const READ_BYTES = 2 ** 25;

/**
 * Opens a safetensors file.
 *
 * Of a file on this machine only the header is read. One behind an address is fetched whole, unless only a part of it is
 * wanted.
 *
 * @param options.part - Whether only some of its tensors will be read.
 * @throws {FormatError} If it is missing, or its header breaks the format. Any dtype of the format is accepted.
 */
export async function openSafetensorsIn(
  storage: Storage,
  name: string,
  { part = false }: { part?: boolean } = {},
): Promise<SafetensorsSource> {
  const source = storage.nameOf(name);
  const path = await storage.local?.pathOf(name);
  const sizeBytes = storage.local || part ? await storage.size(name) : undefined;
  const whole = sizeBytes === undefined ? await readRequired(storage, name) : undefined;
  const length = whole?.length ?? sizeBytes!;
  const readRange = async ({ offset, length: count }: ByteRange): Promise<Uint8Array> =>
    whole ? whole.subarray(offset, offset + count) : readRequired(storage, name, { offset, length: count });

  const prefix = await readRange({ offset: 0, length: Math.min(length, FILE_KIND_BYTES) });
  const headerLength = safetensorsHeaderLength(prefix, length, source);
  const dataStart = SAFETENSORS_PREFIX_BYTES + headerLength;
  const header = await readRange({ offset: SAFETENSORS_PREFIX_BYTES, length: headerLength });
  const { metadata, entries } = parseSafetensorsHeader(header, source, length - dataStart);
  for (const entry of entries.values()) entry.offset += dataStart;
  const withEntries = (own: Map<string, SafetensorsEntry>): SafetensorsSource => ({
    ...{ name, source, path, metadata, entries: own, withEntries },
    read: (names) => readEntries(own, names, readRange),
  });
  return withEntries(entries);
}

async function* readEntries(
  entries: ReadonlyMap<string, SafetensorsEntry>,
  names: Iterable<string>,
  readRange: (range: ByteRange) => Promise<Uint8Array>,
): AsyncGenerator<[string, Uint8Array]> {
  const wanted = [...names].map((name) => [name, entries.get(name)!] as const);
  wanted.sort(([, a], [, b]) => a.offset - b.offset);
  for (let from = 0; from < wanted.length; ) {
    const { offset } = wanted[from]![1];
    let to = from;
    let end = offset;
    while (to < wanted.length) {
      const next = wanted[to]![1];
      const nextEnd = next.offset + next.length;
      if (to > from && (next.offset !== end || nextEnd - offset > READ_BYTES)) break;
      end = nextEnd;
      to++;
    }
    const bytes = await readRange({ offset, length: end - offset });
    for (; from < to; from++) {
      const [name, entry] = wanted[from]!;
      const start = entry.offset - offset;
      // A view that begins within its buffer may be unaligned; decoding copies where it must.
      yield [name, bytes.subarray(start, start + entry.length)];
    }
  }
}
