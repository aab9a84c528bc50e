// Which images of a data set look blurred at the size they are trained at: looked at once, and remembered. Node only.

import { looksBlurred, sharpnessOf } from "../images/sharpness.js";
import { tensor } from "../tensor/tensor.js";
import type { ImageDataset } from "../training/index.js";

/** A page does not wait longer; the rest is looked at behind it. */
const PATIENCE_MS = 2000;
const MOST_REMEMBERED = 50_000;

/** What is still to be looked at of one place. */
interface Unseen {
  dataset: ImageDataset;
  indices: number[];
}

/** What was seen, by the key of an image's pixels. */
export class Blurs {
  private readonly known = new Map<string, boolean>();
  /** By place: a look at another size has taken the place of the one before. */
  private readonly unseen = new Map<string, Unseen>();
  private looking: Promise<void> | undefined;

  /**
   * @param onMore - Called when the rest of a large data set has been looked at.
   * @param patienceMs - Longest that {@link of} waits, in milliseconds.
   */
  constructor(
    private readonly onMore: () => void,
    private readonly patienceMs = PATIENCE_MS,
  ) {}

  /**
   * Looks at what is new: at one image at a time, however many ask.
   *
   * @returns By index; undefined for what has not been looked at yet.
   */
  async of(place: string, dataset: ImageDataset): Promise<(index: number) => boolean | undefined> {
    const indices = Array.from({ length: dataset.size }, (_, i) => i).filter(
      (i) => !this.known.has(dataset.pixelKey(i)),
    );
    if (indices.length > 0) {
      // Who looks at the same again has waited before.
      const isUnderWay = this.unseen.get(place)?.dataset.imageSize === dataset.imageSize;
      this.unseen.set(place, { dataset, indices });
      this.looking ??= this.lookOn();
      if (!isUnderWay) await Promise.race([this.looking, pause(this.patienceMs)]);
    }
    return (index) => this.known.get(dataset.pixelKey(index));
  }

  private async lookOn(): Promise<void> {
    const begin = performance.now();
    for (let next = this.takeNext(); next; next = this.takeNext()) await this.look(next.dataset, next.index);
    this.looking = undefined;
    if (performance.now() - begin > this.patienceMs) this.onMore();
  }

  private takeNext(): { dataset: ImageDataset; index: number } | undefined {
    for (const [place, { dataset, indices }] of this.unseen) {
      const index = indices.shift();
      if (index !== undefined) return { dataset, index };
      this.unseen.delete(place);
    }
    return undefined;
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

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref());
}
