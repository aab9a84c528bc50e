// SentencePiece's precompiled map of characters: which stretches of a text are replaced by what before it is cut into pieces.

import { FormatError } from "../../errors.js";

/** Replaces what a map of characters knows. */
export type Normalizer = (text: string) => string;

/**
 * Reads a map: its trie's size in bytes, the trie (Darts' double array of 32-bit units), and the replacements, each ended by
 * a zero byte.
 *
 * A letter with its marks (a grapheme) of up to five bytes is looked up as a whole, otherwise character by character; the
 * shortest entry that it begins with counts for all of it, as in the tokenizers library.
 *
 * @param map - Empty where nothing is replaced.
 * @param source - Names the file in messages.
 * @throws {FormatError} If it is malformed.
 */
export function charsmapNormalizer(map: Uint8Array, source: string): Normalizer {
  if (map.length === 0) return (text) => text;
  const view = new DataView(map.buffer, map.byteOffset, map.byteLength);
  const size = map.length >= 4 ? view.getUint32(0, true) : 0;
  if (size === 0 || size % 4 !== 0 || size > map.length - 4) {
    throw new FormatError(source, `the precompiled_charsmap of ${map.length} bytes has no trie at its beginning.`);
  }
  const units = Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
  const replacements = map.subarray(4 + size);
  const encoder = new TextEncoder();
  const decoder = new TextDecoder();
  const segmenter = new Intl.Segmenter("und", { granularity: "grapheme" });
  const known = new Map<string, string | undefined>();

  const lookUp = (text: string): string | undefined => {
    if (known.has(text)) return known.get(text);
    const at = shortestPrefix(units, encoder.encode(text));
    let found: string | undefined;
    if (at !== undefined && at < replacements.length) {
      const end = replacements.indexOf(0, at);
      found = decoder.decode(replacements.subarray(at, end < 0 ? replacements.length : end));
    }
    known.set(text, found);
    return found;
  };
  const ofGrapheme = (grapheme: string): string => {
    // Longer ones are never looked up as a whole.
    const whole = grapheme.length < 6 && encoder.encode(grapheme).length < 6 ? lookUp(grapheme) : undefined;
    if (whole !== undefined) return whole;
    let result = "";
    for (const character of grapheme) result += lookUp(character) ?? character;
    return result;
  };
  return (text) => {
    known.clear();
    let result = "";
    for (const { segment } of segmenter.segment(text)) result += ofGrapheme(segment);
    return result;
  };
}

/** The value of the shortest key that the bytes begin with. A unit outside of the trie ends the search. */
function shortestPrefix(units: Uint32Array, bytes: Uint8Array): number | undefined {
  const offset = (unit: number) => (unit >>> 10) << ((unit & 0x200) >>> 6);
  let position = offset(units[0]!);
  for (const byte of bytes) {
    if (byte === 0) return undefined;
    position ^= byte;
    const unit = units[position];
    // The lowest eight bits and the highest one: a leaf's value has the highest set, and is no label.
    if (unit === undefined || (unit & 0x800000ff) >>> 0 !== byte) return undefined;
    position ^= offset(unit);
    if ((unit >>> 8) & 1) {
      const leaf = units[position];
      return leaf === undefined ? undefined : leaf & 0x7fffffff;
    }
  }
  return undefined;
}
