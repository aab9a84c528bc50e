// Images at the size at which a page shows them, the last ones kept in memory. Node only.

import { stat } from "node:fs/promises";
import { FormatError } from "../errors.js";
import { readImageBytes } from "../images/image-file.js";
import { loadSharp } from "../images/sharp.js";

const MAX_CACHE_BYTES = 2 ** 26;
const MIN_SIDE = 16;
const MAX_SIDE = 2048;

/** WebP files by their source, the one that was asked for longest ago dropped first. */
export class Thumbnails {
  private readonly kept = new Map<string, Uint8Array>();
  private keptBytes = 0;

  /**
   * An image of a file, upright, on white, both sides at most `side` pixels; never scaled up.
   *
   * @throws {FormatError} If it is damaged or no image.
   */
  async of(file: string, side: number): Promise<Uint8Array> {
    const pixels = Math.min(MAX_SIDE, Math.max(MIN_SIDE, Math.round(side) || MAX_SIDE));
    const { mtimeMs, size } = await stat(file);
    const key = `${pixels} ${mtimeMs} ${size} ${file}`;
    const known = this.kept.get(key);
    if (known) {
      this.kept.delete(key);
      this.kept.set(key, known);
      return known;
    }
    const made = await make(file, pixels);
    this.keep(key, made);
    return made;
  }

  private keep(key: string, bytes: Uint8Array): void {
    if (!this.kept.has(key)) this.keptBytes += bytes.length;
    this.kept.set(key, bytes);
    for (const [oldest, { length }] of this.kept) {
      if (this.keptBytes <= MAX_CACHE_BYTES) break;
      this.kept.delete(oldest);
      this.keptBytes -= length;
    }
  }
}

async function make(file: string, side: number): Promise<Uint8Array> {
  const sharp = await loadSharp();
  try {
    return await sharp(await readImageBytes(file))
      .autoOrient()
      .resize(side, side, { fit: "inside", withoutEnlargement: true })
      .flatten({ background: "white" })
      .toColourspace("srgb")
      .webp({ quality: 85 })
      .toBuffer();
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    throw new FormatError(file, `is no readable image: ${(cause as Error).message.split("\n")[0]}.`, { cause });
  }
}
