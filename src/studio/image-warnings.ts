// What is worth a second look in a data set, image by image, in sentences. Pure.

import { findIn, lossOf, upscalingOf } from "../training/data/dataset-findings.js";
import type { ImageDataset } from "../training/data/image-dataset.js";
import type { ImageWarning, ImageWarningKind } from "./protocol.js";

/**
 * The warnings of every image, in the order of the data set.
 *
 * @param blurred - Whether an image looks blurred at the size it is trained at; undefined where nobody has looked.
 */
export function imageWarnings(
  dataset: ImageDataset,
  blurred: (index: number) => boolean | undefined = () => undefined,
): ImageWarning[][] {
  const found = findIn(dataset);
  const warnings: ImageWarning[][] = Array.from({ length: dataset.size }, () => []);
  const warn = (kind: ImageWarningKind, indices: readonly number[], text: (index: number) => string) => {
    for (const index of indices) warnings[index]!.push({ kind, text: text(index) });
  };
  for (const same of found.duplicates) {
    warn("duplicate", same, (index) => {
      const others = same.filter((other) => other !== index).map((other) => dataset.name(other));
      const more = others.length > 1 ? ` and ${others.length - 1} more` : "";
      return `The same file as ${others[0]}${more}: it counts ${same.length} times in an epoch.`;
    });
  }
  warn(
    "uncaptioned",
    found.uncaptioned,
    (index) => `It has no caption: it is trained on its file name, "${dataset.caption(index)}".`,
  );
  warn("emptyCaption", found.emptyCaptions, () => "Its caption is empty: it is trained without words.");
  warn("tiny", found.upscaled, (index) => {
    const { own } = dataset.traits(index)!;
    const factor = Number(upscalingOf(dataset, index).toPrecision(2));
    return `It has ${own.width}×${own.height} pixels and is scaled up ${factor} times, which blurs it.`;
  });
  const indices = Array.from({ length: dataset.size }, (_, index) => index);
  warn(
    "blurred",
    // One that is scaled up is blurred for that reason.
    indices.filter((index) => blurred(index) && upscalingOf(dataset, index) <= 1),
    () => "It looks blurred at the size it is trained at.",
  );
  warn("cut", found.cut, (index) => `${Math.round(100 * lossOf(dataset, index))} % of it are cut off.`);
  warn(
    "turned",
    found.turned,
    () => "It was taken sideways or upside down, and is turned upright, as its EXIF data say.",
  );
  warn("animated", found.animated, () => "It has several frames, of which the first is taken.");
  warn("transparent", found.transparent, () => "It has transparent parts, which are put on white.");
  return warnings;
}
