// Rows and columns of images in one labelled picture. Node only.

import { ConfigError } from "../errors.js";
import { type ImageLike, type RgbImage, toRgbImage } from "./pixels.js";
import { loadSharp } from "./sharp.js";
import { type TextStyle, textToSvg, textWidth, wrapText } from "./svg-text.js";

/** What `renderGrid` draws. */
export interface GridOptions {
  /** Rows of images; `undefined` leaves a place empty, rows may differ in length. Images may differ in size. */
  rows: readonly (readonly (ImageLike | undefined)[])[];
  title?: string;
  columnTitles?: readonly string[];
  rowLabels?: readonly string[];
  /** Pixels between images; 8 by default. */
  gap?: number;
  /**
   * Whole number by which each image's pixels are repeated. By default the smallest that makes the widest image at
   * least 96 pixels wide.
   */
  scale?: number;
}

const TITLE: TextStyle = { size: 17, weight: 600 };
const COLUMN: TextStyle = { size: 13, weight: 600 };
const ROW: TextStyle = { size: 13 };
const LINE_HEIGHT = 1.3;
const MARGIN = 12;
const MAX_ROW_LABEL_WIDTH = 150;
const MAX_LINES = 3;

/**
 * Draws a grid of images on white: a title, a title over each column, a label left of each row. The images' pixels
 * are copied unchanged (repeated whole when scaled), so the grid is as sharp as they are.
 *
 * @throws {ConfigError} If there is no image, or `gap` or `scale` is out of range.
 * @throws {ShapeError} If something is no image.
 */
export async function renderGrid(options: GridOptions): Promise<RgbImage> {
  const { title, columnTitles = [], rowLabels = [], gap = 8 } = options;
  const rows = options.rows.map((row) => row.map((image) => image && toRgbImage(image)));
  const images = rows.flat().filter((image) => image !== undefined);
  if (images.length === 0) throw new ConfigError("renderGrid: needs at least one image; got none.");
  if (!Number.isInteger(gap) || gap < 0) throw new ConfigError(`renderGrid: gap must be 0 or more; got ${gap}.`);
  const widest = Math.max(...images.map((image) => image.width));
  const scale = options.scale ?? Math.max(1, Math.ceil(96 / widest));
  if (!Number.isInteger(scale) || scale < 1) {
    throw new ConfigError(`renderGrid: scale must be a positive integer; got ${scale}.`);
  }

  const columns = Math.max(...rows.map((row) => row.length), columnTitles.length);
  const columnWidths = Array.from(
    { length: columns },
    (_, column) => scale * Math.max(...rows.map((row) => row[column]?.width ?? 0), Math.ceil(48 / scale)),
  );
  const rowHeights = rows.map((row) => scale * Math.max(0, ...row.map((image) => image?.height ?? 0)));
  const labels = rows.map((_, row) => wrapText(rowLabels[row] ?? "", ROW, MAX_ROW_LABEL_WIDTH, MAX_LINES));
  const labelWidth = Math.ceil(Math.max(0, ...labels.flat().map((line) => textWidth(line, ROW))));
  const headings = columnWidths.map((width, column) => wrapText(columnTitles[column] ?? "", COLUMN, width, MAX_LINES));
  const headingLines = Math.max(0, ...headings.map((lines) => lines.length));

  const left = MARGIN + (labelWidth > 0 ? labelWidth + gap + 4 : 0);
  const width = Math.max(left + sum(columnWidths) + gap * (columns - 1) + MARGIN, 2 * MARGIN + 96);
  const titleLines = wrapText(title ?? "", TITLE, width - 2 * MARGIN, MAX_LINES);
  const titleHeight = titleLines.length * lineHeight(TITLE) + (titleLines.length > 0 ? gap : 0);
  const headingHeight = headingLines * lineHeight(COLUMN) + (headingLines > 0 ? 4 : 0);
  const top = Math.ceil(MARGIN + titleHeight + headingHeight);
  const height = top + sum(rowHeights) + gap * (rows.length - 1) + MARGIN;

  const canvas: RgbImage = { width, height, data: new Uint8Array(width * height * 3).fill(255) };
  const texts = titleLines.map((line, index) =>
    textToSvg(line, { ...TITLE, x: MARGIN, y: MARGIN + baseline(TITLE) + index * lineHeight(TITLE) }),
  );
  for (const [column, lines] of headings.entries()) {
    const x = left + sum(columnWidths.slice(0, column)) + gap * column + columnWidths[column]! / 2;
    // Headings of fewer lines stand on the images, not under the title.
    const y = top - 4 - lines.length * lineHeight(COLUMN) + baseline(COLUMN);
    for (const [index, line] of lines.entries()) {
      texts.push(textToSvg(line, { ...COLUMN, x, y: y + index * lineHeight(COLUMN), anchor: "middle" }));
    }
  }
  let y = top;
  for (const [row, images] of rows.entries()) {
    const lines = labels[row]!;
    const first = y + (rowHeights[row]! - lines.length * lineHeight(ROW)) / 2 + baseline(ROW);
    for (const [index, line] of lines.entries()) {
      texts.push(textToSvg(line, { ...ROW, x: left - gap - 4, y: first + index * lineHeight(ROW), anchor: "end" }));
    }
    let x = left;
    for (const [column, image] of images.entries()) {
      if (image) {
        const indent = Math.floor((columnWidths[column]! - image.width * scale) / 2);
        paste(canvas, image, x + indent, y + Math.floor((rowHeights[row]! - image.height * scale) / 2), scale);
      }
      x += columnWidths[column]! + gap;
    }
    y += rowHeights[row]! + gap;
  }
  return overlaySvg(canvas, texts.join(""));
}

/** Draws SVG content over an image of the same size. */
async function overlaySvg(image: RgbImage, content: string): Promise<RgbImage> {
  const { width, height, data } = image;
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">${content}</svg>`;
  const sharp = await loadSharp();
  const bytes = await sharp(data, { raw: { width, height, channels: 3 } })
    .composite([{ input: Buffer.from(svg) }])
    .removeAlpha()
    .raw()
    .toBuffer();
  return { width, height, data: new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength) };
}

function paste(canvas: RgbImage, image: RgbImage, left: number, top: number, scale: number): void {
  for (let y = 0; y < image.height * scale; y++) {
    const from = Math.floor(y / scale) * image.width;
    const to = (top + y) * canvas.width + left;
    for (let x = 0; x < image.width * scale; x++) {
      const source = 3 * (from + Math.floor(x / scale));
      for (let channel = 0; channel < 3; channel++) {
        canvas.data[3 * (to + x) + channel] = image.data[source + channel]!;
      }
    }
  }
}

function lineHeight({ size }: TextStyle): number {
  return Math.round(size * LINE_HEIGHT);
}

function baseline({ size }: TextStyle): number {
  return Math.round(size * 0.95);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
