// Text in PNG files: tEXt, zTXt and iTXt chunks, read and written on the bytes of a file, in every platform. No pixels.

import { Unzlib } from "fflate";
import { FormatError, quoted } from "../errors.js";

/** A text of a PNG file. */
export interface PngText {
  /** 1 to 79 printable Latin-1 characters, such as "parameters". */
  keyword: string;
  text: string;
}

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
/** Length, type and CRC of a chunk. */
const CHUNK_FRAME = 12;
const MAX_FILE_BYTES = 2 ** 29;
/** Of all texts of a file together, inflated. */
const MAX_TEXT_BYTES = 2 ** 24;
/** Compressed bytes that are inflated before the size is looked at again: at most some 4 MiB come out. */
const INFLATED_AT_ONCE = 2 ** 12;
const KEYWORD = /^(?! )(?!.* {2})[\x20-\x7e\xa1-\xff]{1,79}(?<! )$/;
/** A character that a tEXt chunk cannot hold. */
const BEYOND_LATIN1 = /[^\p{ASCII}\x80-\xff]/u;

interface Chunk {
  type: string;
  data: Uint8Array;
  /** Where its frame begins, and where the next one does. */
  start: number;
  end: number;
}

/**
 * The texts of a PNG file in the order of the file. Every chunk's CRC is checked.
 *
 * @param source - Names the file in messages.
 * @throws {FormatError} If it is no PNG file, damaged, or its texts have more than 16 MiB.
 * @see https://www.w3.org/TR/png-3/#11textinfo
 */
export function readPngTexts(file: Uint8Array, source = "PNG file"): PngText[] {
  const texts: PngText[] = [];
  let room = MAX_TEXT_BYTES;
  for (const { type, data } of pngChunks(file, source)) {
    if (type !== "tEXt" && type !== "zTXt" && type !== "iTXt") continue;
    const { keyword, bytes, isUtf8 } = textOf(type, data, source, room);
    room -= bytes.length;
    if (room < 0) throw tooLarge(source);
    texts.push({ keyword, text: isUtf8 ? fromUtf8(bytes, source) : fromLatin1(bytes) });
  }
  return texts;
}

/**
 * A copy of a PNG file with these texts ahead of its pixels; texts that it had under the same keywords are left out.
 * What Latin-1 can hold becomes a tEXt chunk, other text an iTXt chunk in UTF-8, as Pillow writes them.
 *
 * @throws {FormatError} As {@link readPngTexts} does; or if a keyword is none, or a text holds a zero character.
 */
export function withPngTexts(file: Uint8Array, texts: readonly PngText[], source = "PNG file"): Uint8Array {
  const chunks = pngChunks(file, source);
  const replaced = new Set(texts.map(({ keyword }) => keyword));
  const kept = chunks.filter(({ type, data }) => {
    if (type !== "tEXt" && type !== "zTXt" && type !== "iTXt") return true;
    return !replaced.has(fromLatin1(data.subarray(0, Math.max(0, data.indexOf(0)))));
  });
  const [header, ...others] = kept.map(({ start, end }) => file.subarray(start, end));
  return concatenated([
    file.subarray(0, SIGNATURE.length),
    header!,
    ...texts.map((text) => textChunk(text, source)),
    ...others,
  ]);
}

function pngChunks(file: Uint8Array, source: string): Chunk[] {
  if (SIGNATURE.some((byte, i) => file[i] !== byte)) throw new FormatError(source, "is no PNG file.");
  if (file.length > MAX_FILE_BYTES) {
    throw new FormatError(source, `has ${file.length} bytes; PNG files of at most ${MAX_FILE_BYTES} are read.`);
  }
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const chunks: Chunk[] = [];
  let start = SIGNATURE.length;
  while (chunks.at(-1)?.type !== "IEND") {
    if (start + CHUNK_FRAME > file.length)
      throw new FormatError(source, "is cut off: its last chunk, IEND, is missing.");
    const length = view.getUint32(start);
    const type = fromLatin1(file.subarray(start + 4, start + 8));
    if (!/^[A-Za-z]{4}$/.test(type)) throw new FormatError(source, `has a damaged chunk at byte ${start}.`);
    const end = start + CHUNK_FRAME + length;
    if (end > file.length) throw new FormatError(source, `is cut off: its chunk ${type} has ${length} bytes.`);
    const body = file.subarray(start + 4, end - 4);
    if (crc32(body) !== view.getUint32(end - 4)) {
      throw new FormatError(source, `is damaged: the checksum of its chunk ${type} at byte ${start} is wrong.`);
    }
    chunks.push({ type, data: body.subarray(4), start, end });
    start = end;
  }
  if (chunks[0]!.type !== "IHDR") throw new FormatError(source, "is damaged: a PNG file begins with the chunk IHDR.");
  return chunks;
}

/** A chunk's keyword, and the bytes of its text, inflated. */
function textOf(type: "tEXt" | "zTXt" | "iTXt", data: Uint8Array, source: string, room: number) {
  const malformed = () => new FormatError(source, `is damaged: a chunk ${type} is malformed.`);
  const untilZero = (from: number): number => {
    const end = data.indexOf(0, from);
    if (end < 0) throw malformed();
    return end;
  };
  const keywordEnd = untilZero(0);
  const keyword = fromLatin1(data.subarray(0, keywordEnd));
  if (type === "tEXt") return { keyword, bytes: data.subarray(keywordEnd + 1), isUtf8: false };
  const inflated = (bytes: Uint8Array, method: number | undefined): Uint8Array => {
    if (method !== 0) throw malformed();
    return inflate(bytes, source, room);
  };
  if (type === "zTXt") {
    return { keyword, bytes: inflated(data.subarray(keywordEnd + 2), data[keywordEnd + 1]), isUtf8: false };
  }
  // Keyword, 0, whether it is compressed, how, language, 0, the keyword in that language, 0, text.
  const [isCompressed, method] = [data[keywordEnd + 1], data[keywordEnd + 2]];
  const bytes = data.subarray(untilZero(untilZero(keywordEnd + 3) + 1) + 1);
  if (isCompressed === 0) return { keyword, bytes, isUtf8: true };
  if (isCompressed !== 1) throw malformed();
  return { keyword, bytes: inflated(bytes, method), isUtf8: true };
}

/** Inflates in small parts, so that a small file cannot take all memory. */
function inflate(bytes: Uint8Array, source: string, room: number): Uint8Array {
  const parts: Uint8Array[] = [];
  let total = 0;
  const stream = new Unzlib((part) => {
    total += part.length;
    if (total <= room) parts.push(part);
  });
  try {
    for (let start = 0; start < bytes.length && total <= room; start += INFLATED_AT_ONCE) {
      stream.push(bytes.subarray(start, start + INFLATED_AT_ONCE), start + INFLATED_AT_ONCE >= bytes.length);
    }
  } catch (cause) {
    throw new FormatError(source, `is damaged: a compressed text cannot be read: ${(cause as Error).message}.`, {
      cause,
    });
  }
  if (total > room) throw tooLarge(source);
  return concatenated(parts);
}

const tooLarge = (source: string) =>
  new FormatError(source, `holds more than ${MAX_TEXT_BYTES / 2 ** 20} MiB of text.`);

function textChunk({ keyword, text }: PngText, source: string): Uint8Array {
  if (!KEYWORD.test(keyword)) {
    throw new FormatError(source, `a text's keyword must be 1 to 79 Latin-1 characters; got ${quoted(keyword)}.`);
  }
  if (text.includes("\0")) throw new FormatError(source, `the text ${quoted(keyword)} must not hold a zero character.`);
  const isLatin1 = !BEYOND_LATIN1.test(text);
  const type = isLatin1 ? "tEXt" : "iTXt";
  const content = isLatin1 ? toLatin1(text) : new TextEncoder().encode(text);
  const between = new Uint8Array(isLatin1 ? 1 : 5);
  const body = concatenated([toLatin1(type), toLatin1(keyword), between, content]);
  const chunk = new Uint8Array(body.length + 8);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, body.length - 4);
  chunk.set(body, 4);
  view.setUint32(4 + body.length, crc32(body));
  return chunk;
}

function concatenated(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const toLatin1 = (text: string): Uint8Array => Uint8Array.from(text, (character) => character.charCodeAt(0));

/** Not by TextDecoder: its "latin1" is windows-1252. */
function fromLatin1(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return text;
}

function fromUtf8(bytes: Uint8Array, source: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new FormatError(source, "is damaged: a text is no valid UTF-8.", { cause });
  }
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** CRC-32 as PNG and zip have it. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
