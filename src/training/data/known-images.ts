// What is known of images from an earlier look: decoding thousands of photos only to know that they can be read takes
// minutes, and a training that goes on would do it again. Known by content, so it cannot be out of date. Node only.

import { createHash } from "node:crypto";
import path from "node:path";
import { z } from "zod";
import { readImageBytes } from "../../images/image-file.js";
import { cacheFolder, makeFolder, readJson, writeFileAtomically } from "../../storage/file-access.js";
import type { ImageMemory } from "./image-memory.js";
import { describeImage, readingVersion } from "./image-pixels.js";
import type { DescribedImage, ImageTraits } from "./source-image.js";

/** Fewer images are looked at again each time. */
const WORTH_KEEPING = 200;

const TRAITS = z.object({
  own: z.object({ width: z.int().min(1), height: z.int().min(1) }),
  isDrawing: z.boolean(),
  isTurned: z.boolean(),
  isAnimated: z.boolean(),
  isTransparent: z.boolean(),
});
const KNOWN = z.object({ version: z.string(), images: z.record(z.string(), TRAITS) });

/** Images of one place of data, by the hashes of their files. */
export class KnownImages {
  private readonly now: Record<string, ImageTraits> = {};
  private fresh = 0;

  private constructor(
    private readonly file: string | undefined,
    private readonly version: string,
    private readonly before: Readonly<Record<string, ImageTraits>>,
    private readonly memory: ImageMemory | undefined,
  ) {}

  /**
   * @param place - The folder or file.
   * @param cache - Folder to keep things in; the user's cache folder by default, `false` for none.
   * @param memory - Of the same program, where it has looked before.
   */
  static async of(
    place: string,
    cache: string | false = cacheFolder(),
    memory?: ImageMemory | undefined,
  ): Promise<KnownImages> {
    const version = await readingVersion();
    if (cache === false) return new KnownImages(undefined, version, {}, memory);
    const name = createHash("sha256").update(path.resolve(place)).digest("hex").slice(0, 16);
    const file = path.join(cache, "data", `${name}.json`);
    // A file that is damaged or of another version is as good as none.
    const parsed = KNOWN.safeParse(await readJson(file).catch(() => undefined));
    const images = parsed.success && parsed.data.version === version ? parsed.data.images : {};
    return new KnownImages(file, version, images, memory);
  }

  /** As `describeImage`, with the hash of the file. @throws {FormatError} If the image is damaged or none. */
  async describe(bytes: Uint8Array, source: string): Promise<DescribedImage> {
    const hash = createHash("sha256").update(bytes).digest("hex");
    const known = Object.hasOwn(this.before, hash) ? this.before[hash] : undefined;
    if (!known) this.fresh++;
    const traits = known ?? (await describeImage(bytes, source));
    this.now[hash] = traits;
    return { traits, hash };
  }

  /** As {@link describe}, of a file. @throws {FormatError} If it is damaged, none, or cannot be read. */
  async describeFile(file: string): Promise<DescribedImage> {
    const look = async () => this.describe(await readImageBytes(file), file);
    if (!this.memory) return look();
    const described = await this.memory.of(file, look);
    this.now[described.hash] = described.traits;
    return described;
  }

  /** Keeps what was described, where that is worth a file. */
  async keep(): Promise<void> {
    const { file, version, now: images, fresh } = this;
    if (file === undefined || fresh === 0 || Object.keys(images).length < WORTH_KEEPING) return;
    const content = new TextEncoder().encode(JSON.stringify({ version, images }));
    // A cache that cannot be written costs time, not the result.
    await makeFolder(path.dirname(file))
      .then(() => writeFileAtomically(file, [content]))
      .catch(() => undefined);
  }
}
