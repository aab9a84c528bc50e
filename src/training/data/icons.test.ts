import { mkdtemp, readdir, rm, stat, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ConfigError, ShapeError } from "../../errors.js";
import { cacheFolder } from "../../storage/file-access.js";
import {
  baseNameOf,
  captionOf,
  hasSkinTone,
  ICON_STYLES,
  type IconStyle,
  isFlag,
  isHeldOut,
  loadIconSet,
  rasterizeIcons,
  toModelInput,
} from "./icons.js";

const STYLES = Object.keys(ICON_STYLES) as IconStyle[];
let cache: string;

beforeAll(async () => {
  cache = await mkdtemp(path.join(tmpdir(), "fera-icons-"));
});
afterAll(() => rm(cache, { recursive: true, force: true }));

describe("icon names", () => {
  it("gives every form of a skin tone the base name of the plain drawing", () => {
    expect(baseNameOf("man-medium-dark-skin-tone-bald")).toBe("man-bald");
    expect(baseNameOf("man-bald-medium-dark")).toBe("man-bald");
    expect(baseNameOf("adult-tone3")).toBe("adult");
    expect(baseNameOf("kiss-man-man-dark-skin-tone-medium-light-skin-tone")).toBe("kiss-man-man");
    expect(baseNameOf("man-with-white-cane-facing-right-medium")).toBe("man-with-white-cane");
    expect(baseNameOf("person-walking-light-skin-tone-facing-right")).toBe("person-walking");
  });

  it("keeps names that only sound like a skin tone", () => {
    for (const name of ["police-car-light", "vertical-traffic-light", "speaker-medium-volume", "black-medium-square"]) {
      expect(baseNameOf(name)).toBe(name);
      expect(hasSkinTone(name)).toBe(false);
    }
  });

  it("leaves no skin tone in any base name of any set", () => {
    for (const style of STYLES) {
      for (const name of loadIconSet(style).names) expect(baseNameOf(name)).not.toMatch(/skin-tone|-tone\d|1f3f/);
    }
  });

  it("holds out about 5 % of the drawings, all variants of one together", () => {
    const { names } = loadIconSet("noto");
    const bases = [...new Set(names.map(baseNameOf))];
    const share = bases.filter((name) => isHeldOut(name)).length / bases.length;
    expect(share).toBeGreaterThan(0.03);
    expect(share).toBeLessThan(0.07);
    for (const name of names) expect(isHeldOut(name)).toBe(isHeldOut(baseNameOf(name)));
  });

  it("never has one noto drawing on both sides of the split", () => {
    const set = loadIconSet("noto");
    const sides = new Map<string, boolean>();
    for (const name of set.names) {
      const svg = set.svg(name);
      expect(sides.get(svg) ?? isHeldOut(name), name).toBe(isHeldOut(name));
      sides.set(svg, isHeldOut(name));
    }
  });

  it("makes captions and tells flags from things with a flag", () => {
    expect(captionOf("cat-with-wry-smile")).toBe("cat with wry smile");
    expect(["flag-japan", "pirate-flag", "flag-in-hole", "open-mailbox-with-raised-flag"].map(isFlag)).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });
});

describe("loadIconSet", () => {
  it("reads every style with drawings that have a view box", () => {
    for (const style of STYLES) {
      const set = loadIconSet(style);
      expect(set.names.length).toBeGreaterThan(1500);
      expect(set.svg(set.names[0]!)).toMatch(/^<svg [^>]*viewBox="0 0 \d+ \d+"/);
    }
  });

  it("resolves aliases, mirrored ones too", () => {
    const noto = loadIconSet("noto");
    expect(noto.names).not.toContain("adult");
    expect(noto.resolve("adult")).toBe("person");
    expect(noto.svg("adult")).toBe(noto.svg("person"));
    const fluent = loadIconSet("fluent-emoji-flat");
    expect(fluent.svg("backhand-index-pointing-right")).toContain("scale(-1 1)");
  });

  it("refuses unknown styles and names", () => {
    expect(() => loadIconSet("emojione" as IconStyle)).toThrow(ConfigError);
    expect(() => loadIconSet("toString" as IconStyle)).toThrow(ConfigError);
    expect(() => loadIconSet("noto").svg("no-such-icon")).toThrow(/noto has no icon "no-such-icon"/);
    expect(loadIconSet("noto").has("constructor")).toBe(false);
  });
});

describe("rasterizeIcons", () => {
  it("draws on the background, in the order of the names", async () => {
    const pixels = await rasterizeIcons("noto", ["red-circle", "blue-square"], 32, { cache: false });
    const at = (image: number, y: number, x: number) => [
      ...pixels.subarray(((image * 32 + y) * 32 + x) * 3, ((image * 32 + y) * 32 + x) * 3 + 3),
    ];
    expect(pixels.length).toBe(2 * 32 * 32 * 3);
    expect(at(0, 0, 0)).toEqual([255, 255, 255]);
    const [red, , blueOfRed] = at(0, 16, 16);
    expect(red! - blueOfRed!).toBeGreaterThan(100);
    const [redOfBlue, , blue] = at(1, 16, 16);
    expect(blue! - redOfBlue!).toBeGreaterThan(50);
  });

  it("draws the monochrome set in black on white", async () => {
    const pixels = await rasterizeIcons("fluent-emoji-high-contrast", ["cat-face"], 64, { cache: false });
    expect(Math.min(...pixels)).toBe(0);
    for (let i = 0; i < pixels.length; i += 3) expect(pixels[i]).toBe(pixels[i + 2]);
  });

  it("mirrors a mirrored alias", async () => {
    const [left, right] = await Promise.all(
      ["left", "right"].map((side) =>
        rasterizeIcons("fluent-emoji-flat", [`backhand-index-pointing-${side}`], 32, { cache: false }),
      ),
    );
    let difference = 0;
    for (let y = 0; y < 32; y++) {
      for (let x = 0; x < 32; x++) {
        difference += Math.abs(left![(y * 32 + x) * 3]! - right![(y * 32 + 31 - x) * 3]!);
      }
    }
    expect(difference / 1024).toBeLessThan(1);
  });

  it("fits icons of odd proportions whole", async () => {
    const pixels = await rasterizeIcons("twemoji", ["watermelon"], 36, { cache: false });
    expect([...pixels.subarray(0, 3)]).toEqual([255, 255, 255]);
    expect(pixels.length).toBe(36 * 36 * 3);
  });

  it("answers from the cache, and draws again when the cached file is cut short", async () => {
    const names = loadIconSet("noto").names.slice(0, 5);
    const first = await rasterizeIcons("noto", names, 16, { cache });
    const folder = path.join(cache, "icons");
    const files = await readdir(folder);
    expect(files).toHaveLength(1);
    expect(await rasterizeIcons("noto", names, 16, { cache })).toEqual(first);
    await truncate(path.join(folder, files[0]!), 10);
    expect(await rasterizeIcons("noto", names, 16, { cache })).toEqual(first);
    await rasterizeIcons("noto", [...names].reverse(), 16, { cache });
    expect(await readdir(folder)).toHaveLength(2);
  });

  it("leaves one whole file when several callers draw the same list at once", async () => {
    const shared = await mkdtemp(path.join(cache, "shared-"));
    const names = loadIconSet("twemoji").names.slice(0, 20);
    const results = await Promise.all(
      Array.from({ length: 4 }, () => rasterizeIcons("twemoji", names, 24, { cache: shared })),
    );
    for (const result of results) expect(result).toEqual(results[0]);
    const files = await readdir(path.join(shared, "icons"));
    expect(files).toEqual([expect.stringMatching(/^twemoji-24-[0-9a-f]{16}\.rgb$/)]);
    expect((await stat(path.join(shared, "icons", files[0]!))).size).toBe(results[0]!.length);
  });

  it("refuses a name that the set lacks and a size that is no size", async () => {
    await expect(rasterizeIcons("noto", ["no-such-icon"], 16, { cache: false })).rejects.toThrow(ConfigError);
    await expect(rasterizeIcons("noto", ["cat"], 0, { cache: false })).rejects.toThrow(ConfigError);
  });
});

describe("toModelInput", () => {
  it("scales bytes to [-1, 1] and separates the channels", () => {
    const rgb = Uint8Array.from([0, 255, 51, 1, 2, 3, 255, 0, 102, 4, 5, 6]);
    const two = toModelInput(rgb, 1, [2, 0]);
    expect([...two]).toEqual([1, -1, -0.2, -1, 1, -0.6].map(Math.fround));
    const out = new Float32Array(3);
    expect(toModelInput(rgb, 1, [2], out)).toBe(out);
  });

  it("refuses indices outside the stack, half images and an output of another size", () => {
    expect(() => toModelInput(new Uint8Array(12), 2, [1])).toThrow(ShapeError);
    expect(() => toModelInput(new Uint8Array(13), 2, [0])).toThrow(ShapeError);
    expect(() => toModelInput(new Uint8Array(12), 2, [0], new Float32Array(11))).toThrow(ShapeError);
  });
});

describe("cacheFolder", () => {
  it("follows FERA_CACHE, then XDG_CACHE_HOME", () => {
    const { FERA_CACHE, XDG_CACHE_HOME } = process.env;
    try {
      process.env.XDG_CACHE_HOME = "/xdg";
      delete process.env.FERA_CACHE;
      expect(cacheFolder()).toBe(path.join("/xdg", "fera"));
      process.env.FERA_CACHE = "/mine";
      expect(cacheFolder()).toBe(path.resolve("/mine"));
    } finally {
      restore("FERA_CACHE", FERA_CACHE);
      restore("XDG_CACHE_HOME", XDG_CACHE_HOME);
    }
  });
});

function restore(name: string, value: string | undefined): void {
  if (value === undefined) delete process.env[name];
  else process.env[name] = value;
}
