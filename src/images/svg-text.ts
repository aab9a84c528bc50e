// Text as SVG outlines, so that pictures look the same on machines without any fonts. Node only.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { FormatError } from "../errors.js";

const require = createRequire(import.meta.url);

// opentype.js ships no declarations (2.0.0); this is the part used here.
interface Glyph {
  index: number;
  advanceWidth: number;
  getPath(x: number, y: number, size: number): { toPathData(decimals: number): string };
}
interface Font {
  unitsPerEm: number;
  charToGlyph(character: string): Glyph;
}

/** Weights that text can be set in. */
export type FontWeight = 400 | 600;

/** How a piece of text is set. */
export interface TextStyle {
  /** Font size in pixels. */
  size: number;
  weight?: FontWeight;
}

// Inter's files are cut by script; a character is taken from the first file that has it.
const SCRIPTS = ["latin", "latin-ext", "greek", "cyrillic"] as const;
const fonts = new Map<string, Font>();

function fontFor(character: string, weight: FontWeight): Font {
  for (const script of SCRIPTS) {
    const font = loadFont(script, weight);
    if (font.charToGlyph(character).index > 0) return font;
  }
  return loadFont("latin", weight);
}

function loadFont(script: (typeof SCRIPTS)[number], weight: FontWeight): Font {
  const name = `inter-${script}-${weight}-normal.woff`;
  let font = fonts.get(name);
  if (!font) {
    try {
      const bytes = readFileSync(new URL(`../../vendor/inter/${name}`, import.meta.url));
      const { parse } = require("opentype.js") as { parse(buffer: ArrayBuffer): Font };
      font = parse(new Uint8Array(bytes).buffer);
    } catch (cause) {
      throw new FormatError(name, "the font cannot be read. Install fera again; in a checkout, run npm ci.", { cause });
    }
    fonts.set(name, font);
  }
  return font;
}

/**
 * The letters of a line and where they stand, in pixels from its start. Set letter by letter, without kerning:
 * opentype.js's own text layout fails on Inter ("substFormat: 2 is not yet supported", 2.0.0).
 */
function layOut(
  text: string,
  { size, weight = 400 }: TextStyle,
): { glyphs: { glyph: Glyph; x: number }[]; width: number } {
  const glyphs: { glyph: Glyph; x: number }[] = [];
  let pen = 0;
  for (const character of text.normalize("NFC")) {
    const font = fontFor(character, weight);
    const glyph = font.charToGlyph(character);
    glyphs.push({ glyph, x: pen });
    pen += (glyph.advanceWidth * size) / font.unitsPerEm;
  }
  return { glyphs, width: pen };
}

/** Width of a line of text in pixels. */
export function textWidth(text: string, style: TextStyle): number {
  return layOut(text, style).width;
}

/** Where and how `textToSvg` sets a line. */
export interface TextPlacement extends TextStyle {
  /** The anchor's place; `y` is the baseline. */
  x: number;
  y: number;
  anchor?: "start" | "middle" | "end";
  fill?: string;
  /** Degrees clockwise around the anchor. */
  rotate?: number;
}

/**
 * A line of text as an SVG `<path>` of its letters' outlines (Inter, SIL Open Font License). Characters that
 * Inter's Latin, Greek and Cyrillic files lack, such as arrows and emoji, show as a box.
 */
export function textToSvg(text: string, placement: TextPlacement): string {
  const { x, y, size, weight = 400, anchor = "start", fill = "#222", rotate = 0 } = placement;
  const { glyphs, width } = layOut(text, { size, weight });
  const start = x - (anchor === "start" ? 0 : anchor === "middle" ? width / 2 : width);
  const outline = glyphs.map(({ glyph, x: offset }) => glyph.getPath(start + offset, y, size).toPathData(2)).join("");
  const turn = rotate === 0 ? "" : ` transform="rotate(${rotate} ${x} ${y})"`;
  return outline === "" ? "" : `<path d="${outline}" fill="${fill}"${turn}/>`;
}

/**
 * Breaks text at spaces into lines of at most `maxWidth` pixels; what does not fit into `maxLines` ends in "…", and a
 * single word that is too wide is cut.
 */
export function wrapText(text: string, style: TextStyle, maxWidth: number, maxLines: number): string[] {
  const fits = (line: string) => textWidth(line, style) <= maxWidth;
  const words = text.split(/\s+/).filter((word) => word !== "");
  const lines: string[] = [];
  let line = "";
  while (words.length > 0) {
    const longer = line === "" ? words[0]! : `${line} ${words[0]}`;
    if (fits(longer)) {
      line = longer;
      words.shift();
    } else if (lines.length === maxLines - 1 || line === "") {
      // The last line, or a word wider than a line: cut so that the mark fits.
      const rest = lines.length === maxLines - 1 ? [line, ...words].join(" ").trim() : words.shift()!;
      const letters = [...rest];
      while (letters.length > 0 && !fits(`${letters.join("").trimEnd()}…`)) letters.pop();
      lines.push(`${letters.join("").trimEnd()}…`);
      if (lines.length === maxLines) return lines;
    } else {
      lines.push(line);
      line = "";
    }
  }
  if (line !== "") lines.push(line);
  return lines;
}
