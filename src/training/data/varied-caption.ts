// Captions as lists of tags, in another order and with gaps each time. Pure.

import type { Generator } from "../../tensor/random.js";

/** How a caption varies. */
export interface CaptionVariation {
  /** Tags after the kept ones come in random order. */
  shuffle?: boolean;
  /** How many tags at the beginning stay, in their order. Default 0. */
  keepTokens?: number;
  /** Chance of each other tag to be left out. Default 0. */
  tagDropout?: number;
  /** What stands between tags. Default a comma. */
  separator?: string;
}

/** Whether captions differ from one time to the next, so that their text states cannot be made once. */
export function isVaried({ shuffle = false, tagDropout = 0 }: CaptionVariation): boolean {
  return shuffle || tagDropout > 0;
}

/**
 * A caption as it is learned this time, under kohya's rules: it is split at the separator, the first `keepTokens` tags
 * stay, the others are shuffled, then each is left out with the chance `tagDropout`.
 *
 * Draws the same number of values for the same number of tags whatever is left out. A caption is returned as it is where
 * nothing varies.
 */
export function variedCaption(caption: string, variation: CaptionVariation, generator: Generator): string {
  const { shuffle = false, keepTokens = 0, tagDropout = 0, separator = "," } = variation;
  if (!isVaried(variation)) return caption;
  const tags = caption.split(separator).map((tag) => tag.trim());
  const kept = tags.slice(0, keepTokens);
  let others = tags.slice(keepTokens);
  if (shuffle) {
    // Fisher & Yates.
    for (let last = others.length - 1; last > 0; last--) {
      const other = Math.min(last, Math.floor(generator.uniform() * (last + 1)));
      [others[last], others[other]] = [others[other]!, others[last]!];
    }
  }
  if (tagDropout > 0) others = others.filter(() => generator.uniform() >= tagDropout);
  return [...kept, ...others].filter((tag) => tag !== "").join(separator === "," ? ", " : separator);
}
