// Which images of a data set look blurred at the size they are trained at: looked at once, and remembered. Node only.

import { looksBlurred, sharpnessOf } from "../images/sharpness.js";
import { tensor } from "../tensor/tensor.js";
import type { ImageDataset } from "../training/index.js";

/** A page does not wait longer; the rest is looked at behind it. */
const PATIENCE_MS = 2000;
const MOST_REMEMBERED = 50_000;

/** What was seen, by the key of an image's pixels. */
export class Blurs {
  private readonly known = new Map<string, boolean>();

  /** @param onMore - Called when the rest of a large data set has been looked at. */
  constructor(private readonly onMore: () => void) {}

  /** Looks at what is new. @returns By index; undefined for what has not been looked at yet. */
  async of(dataset: ImageDataset): Promise<(index: number) => boolean | undefined> {
    const unseen = Array.from({ length: dataset.size }, (_, i) => i).filter(
      (i) => !this.known.has(dataset.pixelKey(i)),
    );
    const begin = performance.now();
    while (unseen.length > 0 && performance.now() - begin < PATIENCE_MS) await this.look(dataset, unseen.shift()!);
    if (unseen.length > 0) void this.lookOn(dataset, unseen);
    return (index) => this.known.get(dataset.pixelKey(index));
  }

  private async lookOn(dataset: ImageDataset, unseen: readonly number[]): Promise<void> {
    for (const index of unseen) await this.look(dataset, index);
    this.onMore();
  }

  private async look(dataset: ImageDataset, index: number): Promise<void> {
    const key = dataset.pixelKey(index);
    if (this.known.has(key)) return;
    const { width, height } = dataset.shape(index);
    // A file may go while it is looked at.
    const planes = await dataset.image(index).catch(() => undefined);
    if (this.known.size >= MOST_REMEMBERED) this.known.clear();
    this.known.set(key, planes !== undefined && looksBlurred(sharpnessOf(tensor(planes, [3, height, width]))));
  }
}
