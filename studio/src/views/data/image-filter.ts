// Which images of a set are shown: by their warnings, and by words in their names and captions.

import type { DataSetImage, ImageWarningKind } from "../../../../src/studio/protocol.js";

/** What is looked for. */
export interface ImageFilter {
  /** Every word of it is in the name or the caption, in any case. */
  text: string;
  warning: "all" | "any" | ImageWarningKind;
}

export const NO_FILTER: ImageFilter = { text: "", warning: "all" };

/** How warnings are called on a badge. */
export const WARNING_NAMES: Readonly<Record<ImageWarningKind, string>> = {
  turned: "rotated",
  tiny: "tiny",
  duplicate: "duplicate",
  uncaptioned: "no caption",
  emptyCaption: "empty caption",
  blurred: "blurred",
  cut: "cut",
  animated: "animated",
  transparent: "transparent",
};

/**
 * Images that fit.
 *
 * @param kept - Names that stay although they fit no longer: what is mended must not vanish from under the hand.
 */
export function filterImages(
  images: readonly DataSetImage[],
  { text, warning }: ImageFilter,
  kept: ReadonlySet<string> = new Set(),
): DataSetImage[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return images.filter((image) => {
    if (kept.has(image.name)) return true;
    const { name, caption, warnings } = image;
    const isWarned = warning === "any" ? warnings.length > 0 : warnings.some(({ kind }) => kind === warning);
    if (warning !== "all" && !isWarned) return false;
    const searched = `${name}\n${caption}`.toLowerCase();
    return words.every((word) => searched.includes(word));
  });
}

/** How many images have each kind of warning, the most frequent first. */
export function countWarnings(images: readonly DataSetImage[]): [ImageWarningKind, number][] {
  const counts = new Map<ImageWarningKind, number>();
  for (const { warnings } of images) {
    for (const kind of new Set(warnings.map((warning) => warning.kind))) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  return [...counts].sort(([, a], [, b]) => b - a);
}
