// Which images of a folder are held out: a pure function of their paths and contents, the same on every machine.

import { ConfigError } from "../../errors.js";
import { hash32 } from "./icon-names.js";

/** The share of a source's images that is held out where nothing else is said. */
export const DEFAULT_VALIDATION_SPLIT = 0.05;

/** What decides about one image. */
export interface HoldOutCandidate {
  /** Relative to the data folder, with forward slashes: what tells it from every other image. */
  path: string;
  /** Equal for equal files. */
  contentHash: string;
}

/**
 * The paths that are held out: ⌊share · N⌋ of N images, those whose paths have the smallest hashes.
 *
 * Images whose content occurs more than once come last: a copy that is trained on would be no unseen image. Adding a
 * file moves hardly any other.
 *
 * @param share - 0 to below 1.
 */
export function heldOutOf(images: readonly HoldOutCandidate[], share: number): Set<string> {
  // 0.29 · 100 is a little less than 29.
  const count = Math.floor(images.length * share + 1e-9);
  const copies = new Map<string, number>();
  for (const { contentHash } of images) copies.set(contentHash, (copies.get(contentHash) ?? 0) + 1);
  // File systems differ in how they compose letters and marks.
  const ranked = images.map(({ path, contentHash }) => ({
    path,
    isCopied: copies.get(contentHash)! > 1 ? 1 : 0,
    hash: hash32(path.normalize("NFC")),
  }));
  ranked.sort((a, b) => a.isCopied - b.isCopied || a.hash - b.hash || (a.path < b.path ? -1 : 1));
  return new Set(ranked.slice(0, count).map(({ path }) => path));
}

/** Where a source has no image of the split that is asked for. */
export function emptySplit(source: string, images: number, share: number): ConfigError {
  const why = share === 0 ? "validationSplit is 0" : `a share of ${share} is less than one`;
  return new ConfigError(
    `dataset: none of the ${images} images of "${source}" is held out: ${why}. Take another split, or a larger share.`,
  );
}
