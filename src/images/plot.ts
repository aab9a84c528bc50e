// Line and stacked-area plots as SVG and as pixels, without any fonts on the machine. Node only.

import { ConfigError } from "../errors.js";
import type { RgbImage } from "./pixels.js";
import { linearScale, logScale, rangeOf, type Scale } from "./plot-scale.js";
import { loadSharp } from "./sharp.js";
import { type TextStyle, textToSvg, textWidth, wrapText } from "./svg-text.js";

/** One curve. */
export interface PlotSeries {
  label: string;
  x: ArrayLike<number>;
  /** As many values as `x`. A curve is broken where a value is not finite, or not positive on a logarithmic axis. */
  y: ArrayLike<number>;
  /** Any CSS colour; by default the next of a palette that colour-blind readers can tell apart. */
  color?: string;
  /** Drawn thin and pale, such as raw losses behind smoothed ones. */
  faint?: boolean;
}

/** What `plotSvg` and `renderPlot` draw. */
export interface PlotOptions {
  series: readonly PlotSeries[];
  /** "line" by default; "area" stacks the series in their order, which needs the same `x` in all and no negative `y`. */
  kind?: "line" | "area";
  title?: string;
  xLabel?: string;
  yLabel?: string;
  /** Ends of the axes, the larger one first to reverse it; by default what the data needs. */
  xRange?: readonly [number, number];
  yRange?: readonly [number, number];
  xScale?: "linear" | "log";
  yScale?: "linear" | "log";
  /** Marks of the y axis, such as names of what lies at each height; round numbers by default. */
  yTicks?: readonly { value: number; label: string }[];
  /** Size in CSS pixels; 720 × 400 by default. */
  width?: number;
  height?: number;
  /** Tells the plots of one HTML page apart: letters, digits and hyphens. */
  id?: string;
}

/** Okabe and Ito's colours, darkest contrasts first. */
const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444"];
const TITLE: TextStyle = { size: 16, weight: 600 };
const LABEL: TextStyle = { size: 13 };
const TICK: TextStyle = { size: 12 };
const MARGIN = 14;
const MUTED = "#555";

/** Draws a plot into pixels, at twice its CSS size by default so that it stays sharp on dense screens. */
export async function renderPlot(options: PlotOptions & { pixelRatio?: number }): Promise<RgbImage> {
  const { pixelRatio = 2 } = options;
  const sharp = await loadSharp();
  const { data, info } = await sharp(Buffer.from(plotSvg(options)), { density: 72 * pixelRatio })
    .flatten({ background: "white" })
    .toColourspace("srgb")
    .removeAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  return {
    width: info.width,
    height: info.height,
    data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
  };
}

/**
 * Draws a plot as an SVG document that needs no fonts.
 *
 * @throws {ConfigError} If there is nothing to draw, lengths differ, or a range does not fit its axis.
 */
export function plotSvg(options: PlotOptions): string {
  const { kind = "line", title = "", xLabel = "", yLabel = "", width = 720, height = 400, id = "plot" } = options;
  checkPlot(options);
  const bands = kind === "area" ? stack(options.series) : undefined;
  const parts: string[] = [];

  let top = MARGIN;
  for (const line of wrapText(title, TITLE, width - 2 * MARGIN, 2)) {
    parts.push(textToSvg(line, { ...TITLE, x: MARGIN, y: top + TITLE.size }));
    top += TITLE.size * 1.3;
  }
  if (title !== "") top += 4;
  const legend = drawLegend(options.series, kind, top, width);
  parts.push(legend.svg);
  top = legend.bottom + 8;

  const bottom = height - MARGIN - TICK.size - 8 - (xLabel === "" ? 0 : LABEL.size + 10);
  const yRange = options.yRange ?? dataRange(options, "y", bands);
  const yPixels = [bottom, top] as const;
  const y = makeScale(options.yScale, yRange, yPixels, Math.max(2, Math.round((bottom - top) / 45)));
  const yTicks = options.yTicks ?? y.ticks;
  const tickWidth = Math.max(0, ...yTicks.map((tick) => textWidth(tick.label, TICK)));
  const left = MARGIN + (yLabel === "" ? 0 : LABEL.size + 10) + tickWidth + 8;
  const right = width - MARGIN - 6;
  const xRange = options.xRange ?? dataRange(options, "x", bands);
  const x = makeScale(options.xScale, xRange, [left, right], Math.max(2, Math.round((right - left) / 85)));

  for (const tick of yTicks) {
    const at = round(y.at(tick.value));
    parts.push(`<path d="M${left} ${at}H${right}" stroke="#e4e4e4"/>`);
    parts.push(textToSvg(tick.label, { ...TICK, x: left - 8, y: at + TICK.size * 0.36, anchor: "end", fill: MUTED }));
  }
  parts.push(
    `<clipPath id="${id}"><rect x="${left}" y="${top}" width="${right - left}" height="${bottom - top}"/></clipPath>`,
  );
  parts.push(`<g clip-path="url(#${id})">`);
  for (const [index, series] of options.series.entries()) {
    const color = colorOf(series, index);
    if (bands) {
      const { lower, upper } = bands[index]!;
      parts.push(`<path d="${areaPath(series.x, lower, upper, x, y)}" fill="${color}" fill-opacity="0.85"/>`);
    } else {
      const style = series.faint ? `stroke-width="1" stroke-opacity="0.3"` : `stroke-width="2"`;
      parts.push(
        `<path d="${linePath(series.x, series.y, x, y)}" fill="none" stroke="${color}" ${style}${dashOf(series, index)} stroke-linejoin="round" stroke-linecap="round"/>`,
      );
    }
  }
  parts.push("</g>");
  parts.push(`<path d="M${left} ${bottom}H${right}" stroke="#888"/>`);
  for (const tick of x.ticks) {
    const at = round(x.at(tick.value));
    parts.push(`<path d="M${at} ${bottom}v4" stroke="#888"/>`);
    parts.push(textToSvg(tick.label, { ...TICK, x: at, y: bottom + 8 + TICK.size, anchor: "middle", fill: MUTED }));
  }
  const middle = (left + right) / 2;
  if (xLabel !== "") parts.push(textToSvg(xLabel, { ...LABEL, x: middle, y: height - MARGIN, anchor: "middle" }));
  if (yLabel !== "") {
    const place = { x: MARGIN + LABEL.size, y: (top + bottom) / 2 };
    parts.push(textToSvg(yLabel, { ...LABEL, ...place, anchor: "middle", rotate: -90 }));
  }
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">` +
    `<rect width="${width}" height="${height}" fill="#fff"/>${parts.join("")}</svg>`
  );
}

function checkPlot(options: PlotOptions): void {
  const { series, kind, xRange, yRange, xScale, yScale, width = 720, height = 400, id = "plot" } = options;
  if (!/^[\w-]+$/.test(id)) throw new ConfigError(`plot: id must be letters, digits and hyphens; got "${id}".`);
  if (series.length === 0) throw new ConfigError("plot: needs at least one series; got none.");
  if (!(width >= 200 && height >= 150)) {
    throw new ConfigError(`plot: must be at least 200×150; got ${width}×${height}.`);
  }
  for (const { label, x, y } of series) {
    if (x.length !== y.length) {
      throw new ConfigError(`plot: "${label}" needs as many x as y; got ${x.length} and ${y.length}.`);
    }
    if (kind === "area") {
      const first = series[0]!.x;
      if (x.length !== first.length || Array.from(x).some((value, index) => value !== first[index])) {
        throw new ConfigError(`plot: stacked series must share their x; "${label}" has its own.`);
      }
      if (Array.from(y).some((value) => !(value >= 0) || value === Number.POSITIVE_INFINITY)) {
        throw new ConfigError(`plot: stacked series must be finite and not negative; "${label}" is not.`);
      }
    }
  }
  if (kind === "area" && yScale === "log") throw new ConfigError("plot: stacked areas need a linear y axis.");
  for (const [name, range, scale] of [["xRange", xRange, xScale] as const, ["yRange", yRange, yScale] as const]) {
    if (!range) continue;
    const [from, to] = range;
    if (!Number.isFinite(from) || !Number.isFinite(to) || from === to || (scale === "log" && !(from > 0 && to > 0))) {
      throw new ConfigError(`plot: ${name} does not fit a ${scale ?? "linear"} axis; got ${from} to ${to}.`);
    }
  }
}

interface Band {
  lower: number[];
  upper: number[];
}

function stack(series: readonly PlotSeries[]): Band[] {
  let lower = new Array<number>(series[0]!.x.length).fill(0);
  return series.map(({ y }) => {
    const upper = lower.map((value, index) => value + y[index]!);
    const band = { lower, upper };
    lower = upper;
    return band;
  });
}

function dataRange(options: PlotOptions, axis: "x" | "y", bands: Band[] | undefined): readonly [number, number] {
  const log = (axis === "x" ? options.xScale : options.yScale) === "log";
  const values =
    bands && axis === "y" ? [0, ...bands.at(-1)!.upper] : options.series.flatMap((series) => Array.from(series[axis]));
  const room = axis === "y" && !bands ? 0.05 : 0;
  const range = rangeOf(values, { log, room });
  if (!range) throw new ConfigError(`plot: no ${axis} value can be drawn${log ? " on a logarithmic axis" : ""}.`);
  // Values that are never negative start at 0 when it is near: a loss curve shows its true height.
  if (axis === "y" && !log && range[0] < 0 && values.every((value) => !(value < 0))) return [0, range[1]];
  return range;
}

function makeScale(
  kind: "linear" | "log" | undefined,
  range: readonly [number, number],
  pixels: readonly [number, number],
  ticks: number,
): Scale {
  return (kind === "log" ? logScale : linearScale)(range, pixels, ticks);
}

function linePath(xs: ArrayLike<number>, ys: ArrayLike<number>, x: Scale, y: Scale): string {
  let path = "";
  let pen = "M";
  for (let i = 0; i < xs.length; i++) {
    const across = x.at(xs[i]!);
    const down = y.at(ys[i]!);
    if (Number.isFinite(across) && Number.isFinite(down)) {
      path += `${pen}${round(across)} ${round(down)}`;
      // A point between two gaps would be invisible without a line to itself; round caps make it a dot.
      if (pen === "M") path += "h0";
      pen = "L";
    } else {
      pen = "M";
    }
  }
  return path;
}

function areaPath(xs: ArrayLike<number>, lower: number[], upper: number[], x: Scale, y: Scale): string {
  const point = (value: number, index: number) => `${round(x.at(xs[index]!))} ${round(y.at(value))}`;
  const back = lower.map(point).reverse();
  return `M${[...upper.map(point), ...back].join("L")}Z`;
}

/** A row of colour samples and labels, wrapped to the plot's width; nothing for a single series without a label. */
function drawLegend(series: readonly PlotSeries[], kind: "line" | "area", top: number, width: number) {
  const named = series
    .map((one, index) => ({ ...one, color: colorOf(one, index), dash: dashOf(one, index) }))
    .filter((one) => one.label !== "");
  const lineHeight = LABEL.size * 1.5;
  let svg = "";
  let x = MARGIN;
  let line = 0;
  for (const { label, color, faint, dash } of named) {
    const [text = ""] = wrapText(label, LABEL, width - 2 * MARGIN - 26, 1);
    const itemWidth = 26 + textWidth(text, LABEL) + 18;
    if (x > MARGIN && x + itemWidth - 18 > width - MARGIN) {
      x = MARGIN;
      line++;
    }
    const y = top + line * lineHeight + LABEL.size;
    const opacity = faint ? ` opacity="0.4"` : "";
    svg +=
      kind === "area"
        ? `<rect x="${round(x)}" y="${round(y - 10.5)}" width="18" height="12" rx="2" fill="${color}" fill-opacity="0.85"/>`
        : `<path d="M${round(x)} ${round(y - 4.5)}h18" stroke="${color}" stroke-width="3"${dash} stroke-linecap="round"${opacity}/>`;
    svg += textToSvg(text, { ...LABEL, x: x + 26, y });
    x += itemWidth;
  }
  return { svg, bottom: named.length === 0 ? top : top + (line + 1) * lineHeight };
}

/** Lines that have an earlier one's colour are dashed. */
function dashOf({ color }: PlotSeries, index: number): string {
  return color === undefined && index >= PALETTE.length ? ` stroke-dasharray="5 5"` : "";
}

function colorOf(series: PlotSeries, index: number): string {
  return series.color ?? PALETTE[index % PALETTE.length]!;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
