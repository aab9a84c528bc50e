// What is worth a second look in a data set, image by image. Pure.

import { findIn, lossOf, upscalingOf } from "../training/data/dataset-findings.js";
import type { ImageDataset } from "../training/data/image-dataset.js";
import type { ImageWarning } from "./protocol.js";
import { warningTexts } from "./warning-texts.js";

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
  const [cut, uncaptioned] = [new Set(found.cut), new Set(found.uncaptioned)];
  const copies = new Map(
    found.duplicates.flatMap((same) =>
      same.map(
        (index) => [index, same.filter((other) => other !== index).map((other) => dataset.name(other))] as const,
      ),
    ),
  );
  return Array.from({ length: dataset.size }, (_, index) => {
    const traits = dataset.traits(index);
    return warningTexts({
      own: traits?.own ?? dataset.shape(index),
      upscaling: upscalingOf(dataset, index),
      lost: cut.has(index) ? lossOf(dataset, index) : undefined,
      copies: copies.get(index) ?? [],
      caption: dataset.caption(index),
      isUncaptioned: uncaptioned.has(index),
      isBlurred: blurred(index) === true,
      isTurned: traits?.isTurned ?? false,
      isAnimated: traits?.isAnimated ?? false,
      isTransparent: traits?.isTransparent ?? false,
    });
  });
}
