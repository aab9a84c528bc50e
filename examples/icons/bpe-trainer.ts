// Learns a CLIP-format byte-level BPE vocabulary from captions. Pure; made for some ten thousand captions, not for the web.

import { ConfigError } from "../../src/errors.js";
import {
  CLIP_BOS_TOKEN,
  CLIP_END_OF_WORD,
  CLIP_EOS_TOKEN,
  clipByteSymbols,
  splitClipWords,
} from "../../src/models/clip-tokenizer/clip-words.js";

// 256 bytes, 256 bytes that end a word, start and end of text.
const FIXED_TOKENS = 514;

interface Word {
  symbols: string[];
  count: number;
}

/**
 * Learns byte-pair merges from texts.
 *
 * The vocabulary lists 256 byte symbols, the same 256 with `</w>`, one token per merge, `<|startoftext|>`,
 * `<|endoftext|>`: the layout of CLIP's own. Each merge joins the pair of neighbouring symbols that is most frequent in
 * the texts' words; among equals, the pair first in code-unit order, so that the result depends on the texts' words
 * and not on their order.
 *
 * @param texts - Captions; split into words as CLIP's tokenizer splits.
 * @param options - `size`: tokens wanted, at least 514. Fewer come out when no pair occurs twice any more.
 * @throws {ConfigError} If `size` is no integer of at least 514.
 * @see Sennrich et al. 2016, arXiv:1508.07909
 */
export function trainClipVocabulary(
  texts: Iterable<string>,
  { size }: { size: number },
): { vocab: Record<string, number>; merges: [string, string][] } {
  if (!Number.isInteger(size) || size < FIXED_TOKENS) {
    throw new ConfigError(`trainClipVocabulary: size must be an integer of at least ${FIXED_TOKENS}; got ${size}.`);
  }
  const bytes = clipByteSymbols();
  const vocab: Record<string, number> = {};
  let used = 0;
  const add = (token: string) => {
    // Two different merges may spell the same token; it keeps its first id.
    if (!Object.hasOwn(vocab, token)) vocab[token] = used++;
  };
  for (const [, symbol] of bytes) add(symbol);
  for (const [, symbol] of bytes) add(symbol + CLIP_END_OF_WORD);

  const words = wordsOf(texts, new Map(bytes));
  const pairs = new PairCounts(words);
  const merges: [string, string][] = [];
  while (used < size - 2) {
    const best = pairs.mostFrequent();
    if (!best) break;
    const [left, right] = best;
    merges.push([left, right]);
    add(left + right);
    pairs.merge(left, right);
  }
  add(CLIP_BOS_TOKEN);
  add(CLIP_EOS_TOKEN);
  return { vocab, merges };
}

function wordsOf(texts: Iterable<string>, symbolOf: ReadonlyMap<number, string>): Word[] {
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const word of splitClipWords(text)) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  const encoder = new TextEncoder();
  return Array.from(counts, ([word, count]) => {
    const symbols = Array.from(encoder.encode(word), (byte) => symbolOf.get(byte)!);
    symbols[symbols.length - 1] += CLIP_END_OF_WORD;
    return { symbols, count };
  });
}

/** How often each pair of neighbouring symbols occurs, kept up to date while pairs are merged. */
class PairCounts {
  // Symbols hold no spaces, so a space separates a pair's key without doubt.
  readonly #counts = new Map<string, number>();
  readonly #wordsWith = new Map<string, Set<Word>>();

  constructor(words: readonly Word[]) {
    for (const word of words) this.#count(word, 1);
  }

  /** The pair that occurs most often, at least twice. */
  mostFrequent(): [string, string] | undefined {
    let best = "";
    let most = 1;
    for (const [pair, count] of this.#counts) {
      if (count > most || (count === most && best !== "" && pair < best)) {
        best = pair;
        most = count;
      }
    }
    return best === "" ? undefined : (best.split(" ") as [string, string]);
  }

  /** Joins a pair wherever it occurs, from left to right. */
  merge(left: string, right: string): void {
    for (const word of [...(this.#wordsWith.get(`${left} ${right}`) ?? [])]) {
      this.#count(word, -1);
      const joined: string[] = [];
      for (let i = 0; i < word.symbols.length; i++) {
        const here = word.symbols[i]!;
        if (here === left && word.symbols[i + 1] === right) {
          joined.push(left + right);
          i++;
        } else {
          joined.push(here);
        }
      }
      word.symbols = joined;
      this.#count(word, 1);
    }
  }

  #count(word: Word, sign: 1 | -1): void {
    for (let i = 0; i + 1 < word.symbols.length; i++) {
      const pair = `${word.symbols[i]} ${word.symbols[i + 1]}`;
      const count = (this.#counts.get(pair) ?? 0) + sign * word.count;
      if (count > 0) this.#counts.set(pair, count);
      else this.#counts.delete(pair);
      const holders = this.#wordsWith.get(pair) ?? new Set();
      if (sign > 0) this.#wordsWith.set(pair, holders.add(word));
      else holders.delete(word);
    }
  }
}
