// How CLIP's tokenizer cuts a text into words, and the symbols that it spells them with. Pure; no vocabulary here.

export const CLIP_BOS_TOKEN = "<|startoftext|>";
export const CLIP_EOS_TOKEN = "<|endoftext|>";
export const CLIP_END_OF_WORD = "</w>";

// Runs of letters, single digits, English contractions, and runs of anything else that is no white space. White space
// is spelled out because JavaScript's \s has U+FEFF, and lacks U+0085, other than the tokenizers library's.
export const CLIP_WORD_PATTERN = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\p{White_Space}\\p{L}\\p{N}]+";

/** The words of a text as CLIP's tokenizer sees them: NFC, lower case, split at white space and between kinds. */
export function splitClipWords(text: string): string[] {
  // Letter by letter: toLowerCase() on a whole word writes ς for a Σ at its end.
  const lower = text.normalize("NFC").replaceAll("Σ", "σ").toLowerCase();
  return lower.match(new RegExp(CLIP_WORD_PATTERN, "gu")) ?? [];
}

/**
 * The visible character that stands for each byte in byte-level BPE, in the order that CLIP's vocabulary lists them.
 *
 * Printable Latin-1 bytes stand for themselves; the others get the characters from U+0100 on.
 *
 * @returns 256 pairs of byte and symbol.
 */
export function clipByteSymbols(): [byte: number, symbol: string][] {
  const printable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
  const bytes = Array.from({ length: 256 }, (_, byte) => byte);
  const hidden = bytes.filter((byte) => !printable(byte));
  return [
    ...bytes.filter(printable).map((byte): [number, string] => [byte, String.fromCodePoint(byte)]),
    ...hidden.map((byte, index): [number, string] => [byte, String.fromCodePoint(0x100 + index)]),
  ];
}
