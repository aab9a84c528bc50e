// Real paired images from the iconify packages: reads the sets, draws them with sharp, caches the pixels. Node only.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { ConfigError, FormatError } from "../../errors.js";
import { loadSharp } from "../../images/sharp.js";
import { cacheFolder, makeFolder, writeFileAtomically } from "../../storage/file-access.js";
import { ICON_STYLES, type IconStyle } from "./icon-names.js";

export { toModelInput } from "../../images/pixels.js";
export { baseNameOf, captionOf, hasSkinTone, ICON_STYLES, type IconStyle, isFlag, isHeldOut } from "./icon-names.js";

const require = createRequire(import.meta.url);

// Part of every cache key: raise it when drawing changes.
const DRAWING_VERSION = 1;
const PARALLEL_DRAWINGS = 2;

/** One icon set: names and drawings. */
export interface IconSet {
  readonly style: IconStyle;
  /** Version of the npm package that the set was read from. */
  readonly version: string;
  /** Every current drawing once, sorted; no aliases, and none that the set itself marks as withdrawn. */
  readonly names: readonly string[];
  /** Whether a name can be drawn: a current or withdrawn drawing, or an alias of one. */
  has(name: string): boolean;
  /** The name of the drawing behind an alias; the name itself when it is no alias. */
  resolve(name: string): string;
  /**
   * The icon as a whole SVG document; `currentColor` is black.
   *
   * @param size - Side of the square it is fitted and centred in; the set's own width and height when left out.
   * @throws {ConfigError} If the set has no such icon.
   */
  svg(name: string, size?: number): string;
}

interface IconFile {
  width?: number;
  height?: number;
  icons: Record<string, IconEntry>;
  aliases?: Record<string, AliasEntry>;
}

interface IconEntry {
  body: string;
  left?: number;
  top?: number;
  width?: number;
  height?: number;
  hidden?: boolean;
}

interface AliasEntry {
  parent: string;
  hFlip?: boolean;
}

const loaded = new Map<IconStyle, IconSet>();

/**
 * Reads an icon set from its npm package, once per process.
 *
 * @throws {ConfigError} If the style is unknown.
 * @throws {FormatError} If the package is missing or unreadable.
 */
export function loadIconSet(style: IconStyle): IconSet {
  if (!Object.hasOwn(ICON_STYLES, style)) {
    throw new ConfigError(`icons: unknown style "${style}". Known: ${Object.keys(ICON_STYLES).join(", ")}.`);
  }
  const known = loaded.get(style);
  if (known) return known;
  const set = parseIconSet(style);
  loaded.set(style, set);
  return set;
}

function parseIconSet(style: IconStyle): IconSet {
  const source = `@iconify-json/${style}`;
  let file: IconFile;
  let version: string;
  try {
    file = JSON.parse(readFileSync(require.resolve(`${source}/icons.json`), "utf8"));
    version = JSON.parse(readFileSync(require.resolve(`${source}/package.json`), "utf8")).version;
  } catch (cause) {
    throw new FormatError(source, `cannot read the icon set. Install it with: npm install ${source}`, { cause });
  }
  const { icons, aliases = {} } = file;

  function locate(name: string): { icon: IconEntry; flipped: boolean; name: string } | undefined {
    let flipped = false;
    // An alias may point to an alias; the bound keeps a loop in a damaged file from hanging.
    for (let current = name, hops = 0; hops <= 8; hops++) {
      if (Object.hasOwn(icons, current)) return { icon: icons[current]!, flipped, name: current };
      if (!Object.hasOwn(aliases, current)) return undefined;
      const alias = aliases[current]!;
      if (alias.hFlip) flipped = !flipped;
      current = alias.parent;
    }
    return undefined;
  }

  function locateOrThrow(name: string) {
    const found = locate(name);
    if (!found) throw new ConfigError(`icons: ${style} has no icon "${name}".`);
    return found;
  }

  return {
    style,
    version,
    names: Object.keys(icons)
      .filter((name) => !icons[name]!.hidden)
      .sort(),
    has: (name) => locate(name) !== undefined,
    resolve: (name) => locateOrThrow(name).name,
    svg(name, size) {
      const { icon, flipped } = locateOrThrow(name);
      const width = icon.width ?? file.width ?? 16;
      const height = icon.height ?? file.height ?? 16;
      const left = icon.left ?? 0;
      const top = icon.top ?? 0;
      const body = icon.body.replaceAll("currentColor", "#000");
      const content = flipped ? `<g transform="translate(${2 * left + width} 0) scale(-1 1)">${body}</g>` : body;
      return (
        `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" ` +
        `width="${size ?? width}" height="${size ?? height}" viewBox="${left} ${top} ${width} ${height}">${content}</svg>`
      );
    },
  };
}

/** Options of `rasterizeIcons`. */
export interface RasterizeOptions {
  /** What lies behind transparent parts, as any CSS colour; white by default. */
  background?: string;
  /** Folder of the cache; `cacheFolder()` by default, `false` for none. */
  cache?: string | false;
}

/**
 * Draws icons as square RGB images, centred, whole, on a plain background.
 *
 * N names, S side. The pixels of a whole list are kept as one raw file in the cache, named by everything that they
 * depend on; it is written atomically, so several processes may ask for the same list at once.
 *
 * @param names - Names or aliases in the set, in the order wanted.
 * @param size - S, in pixels.
 * @returns Interleaved bytes `[N, S, S, 3]`.
 * @throws {ConfigError} If a name is not in the set or the size is not a positive integer.
 */
export async function rasterizeIcons(
  style: IconStyle,
  names: readonly string[],
  size: number,
  { background = "white", cache = cacheFolder() }: RasterizeOptions = {},
): Promise<Uint8Array> {
  if (!Number.isInteger(size) || size < 1) {
    throw new ConfigError(`icons: size must be a positive integer; got ${size}.`);
  }
  const set = loadIconSet(style);
  const length = names.length * size * size * 3;
  const file =
    cache === false ? undefined : path.join(cache, "icons", `${await cacheKey(set, names, size, background)}.rgb`);
  if (file) {
    const cached = await readFile(file).catch(() => undefined);
    if (cached?.length === length) return new Uint8Array(cached.buffer, cached.byteOffset, cached.byteLength);
  }

  const pixels = new Uint8Array(length);
  let next = 0;
  async function drawRemaining(): Promise<void> {
    while (next < names.length) {
      const index = next++;
      pixels.set(await drawIcon(set, names[index]!, size, background), index * size * size * 3);
    }
  }
  await Promise.all(Array.from({ length: PARALLEL_DRAWINGS }, drawRemaining));
  // A cache that cannot be written (a full or read-only disk) costs time, not the result.
  if (file) await keep(file, pixels).catch(() => undefined);
  return pixels;
}

async function keep(file: string, pixels: Uint8Array): Promise<void> {
  await makeFolder(path.dirname(file));
  await writeFileAtomically(file, [pixels]);
}

async function drawIcon(set: IconSet, name: string, size: number, background: string): Promise<Uint8Array> {
  // Drawn at the final size (the SVG's own aspect rule fits and centres it); "contain" only mends librsvg's rounding.
  const sharp = await loadSharp();
  return sharp(Buffer.from(set.svg(name, size)))
    .resize(size, size, { fit: "contain", background })
    .flatten({ background })
    .toColourspace("srgb")
    .removeAlpha()
    .raw()
    .toBuffer();
}

async function cacheKey(set: IconSet, names: readonly string[], size: number, background: string): Promise<string> {
  const sharp = await loadSharp();
  const parts = [DRAWING_VERSION, sharp.versions.rsvg, set.version, background, ...names];
  const digest = createHash("sha256").update(parts.join("\n")).digest("hex").slice(0, 16);
  return `${set.style}-${size}-${digest}`;
}
