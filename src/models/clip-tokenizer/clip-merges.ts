// The merges of a byte-level BPE tokenizer, as `merges.txt` lists them.

import { FormatError } from "../../errors.js";

/**
 * Reads `merges.txt`: a pair of symbols per line, most frequent first.
 *
 * @param source - Names the file in errors.
 * @throws {FormatError} If a line is no pair.
 */
export function parseMerges(source: string, text: string): [string, string][] {
  const merges: [string, string][] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (line === "" || (index === 0 && line.startsWith("#version"))) continue;
    const [left, right, ...rest] = line.split(" ");
    if (!left || !right || rest.length > 0) {
      throw new FormatError(source, `line ${index + 1} must be two symbols; got "${line.slice(0, 80)}".`);
    }
    merges.push([left, right]);
  }
  return merges;
}
