// What is known of image files as long as a program runs: one that looks at a folder again and again reads only the files that
// have changed. `KnownImages` outlives the program, and reads every file to know that it is the same. Node only.

import { stat } from "node:fs/promises";
import { FormatError } from "../../errors.js";
import type { DescribedImage } from "./source-image.js";

const MOST_REMEMBERED = 200_000;

/** Files by size and times; what cannot be read is remembered, too. */
export class ImageMemory {
  private readonly known = new Map<string, { stamp: string; found: DescribedImage | FormatError }>();

  /** @param look - Reads the file, where it is not known as it is. */
  async of(file: string, look: () => Promise<DescribedImage>): Promise<DescribedImage> {
    const stamp = await stampOf(file);
    const known = this.known.get(file);
    if (stamp === undefined || known?.stamp !== stamp) return this.lookAt(file, stamp, look);
    if (known.found instanceof FormatError) throw known.found;
    return known.found;
  }

  private async lookAt(
    file: string,
    stamp: string | undefined,
    look: () => Promise<DescribedImage>,
  ): Promise<DescribedImage> {
    const found = await look().catch((error: unknown) => {
      if (error instanceof FormatError) return error;
      throw error;
    });
    if (this.known.size >= MOST_REMEMBERED) this.known.clear();
    // What changed while it was read is looked at again.
    if (stamp !== undefined && stamp === (await stampOf(file))) this.known.set(file, { stamp, found });
    if (found instanceof FormatError) throw found;
    return found;
  }
}

/** Undefined where there is no such file. */
async function stampOf(file: string): Promise<string | undefined> {
  const known = await stat(file, { bigint: true }).catch(() => undefined);
  return known && `${known.size} ${known.mtimeNs} ${known.ctimeNs} ${known.ino}`;
}
