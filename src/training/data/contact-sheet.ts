// Many training images on one picture, as they are trained on: cut, masked, with caption, shape and repeats. Node only.

import { planarToRgb, type RgbImage } from "../../images/pixels.js";
import { loadSharp } from "../../images/sharp.js";
import { type TextStyle, textToSvg, wrapText } from "../../images/svg-text.js";
import type { ImageDataset } from "./image-dataset.js";

/** Settings of {@link renderContactSheet}. */
export interface ContactSheetOptions {
  title?: string;
  /** Most images; they are spread evenly over the dataset. Default 48. */
  limit?: number;
  /** Images in a row. Default 6. */
  columns?: number;
  signal?: AbortSignal;
}

const SIDE = 192;
const GAP = 14;
const MARGIN = 18;
const TITLE: TextStyle = { size: 18, weight: 600 };
const NAME: TextStyle = { size: 12, weight: 600 };
const DETAIL: TextStyle = { size: 11 };
const CAPTION: TextStyle = { size: 12 };
const CAPTION_LINES = 3;
const LINE = 15;
const TITLE_LINE = 24;
/** What the darkest mask leaves of a pixel. */
const MASKED = 0.2;

/**
 * Draws images as a training sees them, each scaled into a square of 192 pixels.
 *
 * Where a mask is black, the image is dark. Under each: its name; its shape, its repeats where there are several, and
 * whether it is a regularization image or has a mask; the beginning of its caption.
 *
 * @throws {FormatError} If an image cannot be read any more.
 */
export async function renderContactSheet(
  dataset: ImageDataset,
  { title, limit = 48, columns: most = 6, signal }: ContactSheetOptions = {},
): Promise<RgbImage> {
  const count = Math.min(limit, dataset.size);
  const columns = Math.min(most, count);
  const width = 2 * MARGIN + columns * SIDE + (columns - 1) * GAP;
  const titleLines = wrapText(title ?? "", TITLE, width - 2 * MARGIN, 2);
  const texts = titleLines.map((line, i) => textToSvg(line, { ...TITLE, x: MARGIN, y: MARGIN + 16 + TITLE_LINE * i }));
  const pictures: { input: Buffer; left: number; top: number }[] = [];
  let height = MARGIN + (titleLines.length > 0 ? titleLines.length * TITLE_LINE + 6 : 0);
  for (let first = 0; first < count; first += columns) {
    signal?.throwIfAborted();
    const indices = Array.from({ length: Math.min(columns, count - first) }, (_, i) =>
      Math.floor(((first + i) * dataset.size) / count),
    );
    const thumbnails = await Promise.all(indices.map((index) => thumbnail(dataset, index)));
    // All of a row stand on one line, with their texts below it.
    const ground = height + Math.max(...thumbnails.map(({ size }) => size.height));
    let lines = 0;
    for (const [column, { input, size, isMasked }] of thumbnails.entries()) {
      const left = MARGIN + column * (SIDE + GAP);
      pictures.push({ input, left: left + Math.floor((SIDE - size.width) / 2), top: ground - size.height });
      const { paths, count: used } = labels(dataset, indices[column]!, isMasked, left, ground + 6);
      texts.push(...paths);
      lines = Math.max(lines, used);
    }
    height = ground + 6 + LINE * lines + GAP;
  }
  height += MARGIN - GAP;
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">${texts.join("")}</svg>`;
  const sharp = await loadSharp();
  const data = await sharp({ create: { width, height, channels: 3, background: "white" } })
    .composite([...pictures, { input: Buffer.from(svg), left: 0, top: 0 }])
    .removeAlpha()
    .raw()
    .toBuffer();
  return { width, height, data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
}

async function thumbnail(dataset: ImageDataset, index: number) {
  const { width, height } = dataset.shape(index);
  const rgb = planarToRgb(await dataset.image(index), height, width);
  const mask = await dataset.mask(index);
  if (mask) for (let i = 0; i < rgb.length; i++) rgb[i] = rgb[i]! * (MASKED + (1 - MASKED) * mask[Math.floor(i / 3)]!);
  const scale = SIDE / Math.max(width, height);
  const size = { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
  const sharp = await loadSharp();
  const input = await sharp(rgb, { raw: { width, height, channels: 3 } })
    .resize(size.width, size.height, { fit: "fill" })
    .png()
    .toBuffer();
  return { input, size, isMasked: mask !== undefined };
}

function labels(dataset: ImageDataset, index: number, isMasked: boolean, x: number, y: number) {
  const { width, height } = dataset.shape(index);
  const details = [`${width}×${height}`];
  if (dataset.repeats(index) > 1) details.push(`${dataset.repeats(index)} times`);
  if (dataset.isRegularization(index)) details.push("regularization");
  if (isMasked) details.push("mask");
  const lines = [
    ...wrapText(endOf(dataset.name(index)), NAME, SIDE, 1).map((text) => ({ ...NAME, text })),
    ...wrapText(details.join(" · "), DETAIL, SIDE, 1).map((text) => ({ ...DETAIL, text, fill: "#666" })),
    ...wrapText(dataset.caption(index) || "(empty)", CAPTION, SIDE, CAPTION_LINES).map((text) => ({
      ...CAPTION,
      text,
    })),
  ];
  const paths = lines.map(({ text, ...style }, i) => textToSvg(text, { ...style, x, y: y + 11 + LINE * i }));
  return { paths, count: lines.length };
}

/** The last folder and the file: what tells names apart most often. */
const endOf = (name: string): string => name.split("/").slice(-2).join("/");
