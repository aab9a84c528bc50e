// A prompt as the ids that a text encoder takes.

/** One encoded prompt. */
export interface TokenEncoding {
  /** The prompt's ids with special tokens, then padding: exactly as many as were asked for. */
  ids: number[];
  /** How many of the ids come before the padding. */
  length: number;
  /** The end of the prompt that did not fit, as text; undefined when everything fitted. */
  overflow: string | undefined;
}

/** Megabytes take seconds and a gigabyte. */
export const MAX_PROMPT_CHARACTERS = 65_536;

/** Parts of a text, cut at whatever of `tokens` stands in it, the longest that fits first. */
export function cutAtTokens(text: string, tokens: Iterable<string>): string[] {
  const escaped = [...tokens]
    .filter((token) => token !== "")
    .sort((a, b) => b.length - a.length)
    .map((token) => token.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
  if (escaped.length === 0) return [text];
  return text.split(new RegExp(`(${escaped.join("|")})`)).filter((part) => part !== "");
}
