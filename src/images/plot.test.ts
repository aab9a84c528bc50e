import { execFileSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ConfigError, ShapeError } from "../errors.js";
import { zeros } from "../tensor/tensor.js";
import { renderGrid } from "./grid.js";
import type { RgbImage } from "./pixels.js";
import { type PlotOptions, plotSvg, renderPlot } from "./plot.js";
import { linearScale, logScale, rangeOf } from "./plot-scale.js";
import { textToSvg, textWidth, wrapText } from "./svg-text.js";

function pixel(image: RgbImage, x: number, y: number): number[] {
  return [...image.data.subarray(3 * (y * image.width + x), 3 * (y * image.width + x) + 3)];
}

function solid(width: number, height: number, color: readonly [number, number, number]): RgbImage {
  return { width, height, data: Uint8Array.from({ length: width * height * 3 }, (_, i) => color[i % 3]!) };
}

function has(image: RgbImage, test: (red: number, green: number, blue: number) => boolean): boolean {
  for (let i = 0; i < image.data.length; i += 3) {
    if (test(image.data[i]!, image.data[i + 1]!, image.data[i + 2]!)) return true;
  }
  return false;
}

const isDark = (red: number, green: number, blue: number) => red < 80 && green < 80 && blue < 80;

describe("text", () => {
  it("is made of outlines, with no reference to a font", () => {
    const svg = textToSvg("Loss é σ Ж", { x: 0, y: 10, size: 12 });
    expect(svg).toMatch(/^<path d="M/);
    expect(svg).not.toMatch(/<text|font|NaN/);
    expect(textToSvg("", { x: 0, y: 0, size: 12 })).toBe("");
  });

  it("measures: wider in larger and bolder letters, proportional to the size", () => {
    expect(textWidth("step", { size: 24 })).toBeCloseTo(2 * textWidth("step", { size: 12 }), 6);
    expect(textWidth("step", { size: 12, weight: 600 })).toBeGreaterThan(textWidth("step", { size: 12 }));
  });

  it("wraps at spaces and ends what does not fit in an ellipsis", () => {
    const style = { size: 12 };
    const text = "LoRA at the same parameter count as the other one";
    const lines = wrapText(text, style, 100, 8);
    expect(lines.join(" ")).toBe(text);
    for (const line of lines) expect(textWidth(line, style)).toBeLessThanOrEqual(100);
    const cut = wrapText(text, style, 100, 2);
    expect(cut).toHaveLength(2);
    expect(cut[1]).toMatch(/…$/);
    for (const line of cut) expect(textWidth(line, style)).toBeLessThanOrEqual(100);
    expect(wrapText("unbreakableunbreakableunbreakable end", style, 100, 3)).toEqual([
      expect.stringMatching(/^unbreakable.*…$/),
      "end",
    ]);
    expect(wrapText("", style, 100, 3)).toEqual([]);
  });
});

describe("scales", () => {
  it("put ticks at round numbers inside the range", () => {
    expect(linearScale([0, 1000], [0, 500], 5).ticks.map((tick) => tick.label)).toEqual([
      "0",
      "200",
      "400",
      "600",
      "800",
      "1000",
    ]);
    expect(linearScale([-0.1, 0.1], [0, 1], 4).ticks.map((tick) => tick.label)).toEqual([
      "−0.10",
      "−0.05",
      "0",
      "0.05",
      "0.10",
    ]);
    expect(linearScale([1000, 0], [10, 20], 5).at(750)).toBe(12.5);
    expect(logScale([1e-4, 1], [0, 100], 5).ticks.map((tick) => tick.label)).toEqual([
      "1e−4",
      "0.001",
      "0.01",
      "0.1",
      "1",
    ]);
    expect(logScale([0.1, 1], [0, 100], 5).ticks.map((tick) => tick.label)).toEqual(["0.1", "0.2", "0.5", "1"]);
  });

  it("leave values out of the range that have no place on the axis", () => {
    expect(rangeOf([Number.NaN, 2, Number.POSITIVE_INFINITY, 1])).toEqual([1, 2]);
    expect(rangeOf([0, -1, 4, 1], { log: true })).toEqual([1, 4]);
    expect(rangeOf([Number.NaN])).toBeUndefined();
    expect(rangeOf([3, 3])).toEqual([2.7, 3.3]);
    expect(rangeOf([0])).toEqual([-1, 1]);
  });
});

const x = Array.from({ length: 51 }, (_, i) => 20 * i);
const lines: PlotOptions = {
  title: "Training loss",
  xLabel: "step",
  yLabel: "loss",
  series: [
    { label: "MSE", x, y: x.map((step) => Math.exp(-step / 300)) },
    { label: "FECL", x, y: x.map((step) => 0.3 * Math.exp(-step / 500)) },
  ],
};

describe("plots", () => {
  it("draw each series in its colour, with text, at twice the CSS size", async () => {
    const image = await renderPlot({ ...lines, width: 400, height: 300 });
    expect([image.width, image.height]).toEqual([800, 600]);
    expect(has(image, (red, green, blue) => red === 0 && green === 0x72 && blue === 0xb2)).toBe(true);
    expect(has(image, (red, green, blue) => red === 0xd5 && green === 0x5e && blue === 0)).toBe(true);
    expect(has(image, isDark)).toBe(true);
    expect(pixel(image, 0, 0)).toEqual([255, 255, 255]);
  });

  it("stack areas to their sum", async () => {
    const gates: PlotOptions = {
      kind: "area",
      series: [0.2, 0.3, 0.5].map((weight, k) => ({
        label: "",
        x: [1000, 0],
        y: [weight, weight],
        color: ["#ff0000", "#00ff00", "#0000ff"][k],
      })),
      xRange: [1000, 0],
      yRange: [0, 1],
    };
    const { width, height, data } = await renderPlot({ ...gates, pixelRatio: 1 });
    const column = Array.from({ length: height }, (_, y) =>
      data.subarray(3 * (y * width + 400), 3 * (y * width + 400) + 3),
    );
    const count = (channel: number) =>
      column.filter((rgb) => rgb[channel]! > 200 && rgb[(channel + 1) % 3]! < 100).length;
    const total = count(0) + count(1) + count(2);
    expect([count(0), count(1), count(2)].map((part) => Math.round((10 * part) / total))).toEqual([2, 3, 5]);
  });

  it("name what lies at each height where ticks are given", () => {
    const series = [{ label: "", x: [1, 2], y: [1, 1] }];
    const yTicks = [{ value: 1, label: "a method with a long name" }];
    const numbered = plotSvg({ series, yRange: [0, 2] });
    const named = plotSvg({ series, yRange: [0, 2], yTicks });
    const gridLines = (svg: string) => [...svg.matchAll(/M([\d.]+) [\d.]+H[\d.]+" stroke="#e4e4e4"/g)];
    expect(gridLines(numbered).length).toBeGreaterThan(1);
    expect(gridLines(named)).toHaveLength(1);
    expect(Number(gridLines(named)[0]![1])).toBeGreaterThan(Number(gridLines(numbered)[0]![1]) + 100);
  });

  it("break curves at values that cannot be drawn", () => {
    const y = [1, 2, Number.NaN, 4, 0, 6];
    const moves = (scale: "linear" | "log") =>
      plotSvg({ series: [{ label: "", x: [0, 1, 2, 3, 4, 5], y }], yScale: scale })
        .match(/<path d="([^"]*)" fill="none"/)![1]!
        .match(/M/g)!.length;
    expect(moves("linear")).toBe(2);
    expect(moves("log")).toBe(3);
    expect(plotSvg({ series: [{ label: "", x: [0, 1, 2], y: [0, 1, 0] }], yScale: "log" })).not.toMatch(/NaN|Infinity/);
  });

  it("draw a single point and constant curves", () => {
    expect(plotSvg({ series: [{ label: "one", x: [5], y: [0] }] })).not.toMatch(/NaN|Infinity/);
    expect(plotSvg({ series: [{ label: "flat", x: [0, 1], y: [2, 2] }] })).not.toMatch(/NaN|Infinity/);
  });

  it("refuse what cannot be drawn", () => {
    const series = lines.series;
    expect(() => plotSvg({ series: [] })).toThrow(ConfigError);
    expect(() => plotSvg({ series: [{ label: "a", x: [1, 2], y: [1] }] })).toThrow(/as many x as y; got 2 and 1/);
    expect(() => plotSvg({ series: [{ label: "a", x: [1], y: [Number.NaN] }] })).toThrow(/no y value can be drawn/);
    expect(() => plotSvg({ series, yScale: "log", yRange: [0, 1] })).toThrow(/yRange does not fit a log axis/);
    expect(() => plotSvg({ series, xRange: [1, 1] })).toThrow(ConfigError);
    expect(() => plotSvg({ series, kind: "area", yScale: "log" })).toThrow(ConfigError);
    expect(() => plotSvg({ kind: "area", series: [series[0]!, { label: "b", x: [1], y: [1] }] })).toThrow(
      /share their x/,
    );
    expect(() => plotSvg({ kind: "area", series: [{ label: "a", x: [1], y: [-1] }] })).toThrow(/not negative/);
    expect(() => plotSvg({ series, width: 50 })).toThrow(ConfigError);
  });
});

describe("renderGrid", () => {
  it("keeps the images' pixels and puts gaps of 8 white pixels between them", async () => {
    const image = await renderGrid({ rows: [[solid(100, 100, [255, 0, 0]), solid(100, 100, [0, 0, 255])]] });
    expect([image.width, image.height]).toEqual([12 + 100 + 8 + 100 + 12, 124]);
    expect(pixel(image, 111, 50)).toEqual([255, 0, 0]);
    for (let x = 112; x < 120; x++) expect(pixel(image, x, 50)).toEqual([255, 255, 255]);
    expect(pixel(image, 120, 50)).toEqual([0, 0, 255]);
  });

  it("repeats small images' pixels whole", async () => {
    const tiny: RgbImage = { width: 2, height: 1, data: Uint8Array.from([255, 0, 0, 0, 0, 255]) };
    const image = await renderGrid({ rows: [[tiny]] });
    expect(pixel(image, 12 + 47, 13)).toEqual([255, 0, 0]);
    expect(pixel(image, 12 + 48, 13)).toEqual([0, 0, 255]);
  });

  it("draws titles and labels, takes tensors and leaves places empty", async () => {
    const options = { rows: [[zeros([3, 96, 96]), undefined], [solid(96, 96, [0, 255, 0])]] };
    const plain = await renderGrid(options);
    const labelled = await renderGrid({
      ...options,
      title: "Held-out",
      columnTitles: ["base"],
      rowLabels: ["cat", "dog"],
    });
    expect(has(plain, isDark)).toBe(false);
    expect(has(labelled, isDark)).toBe(true);
    expect(labelled.height).toBeGreaterThan(plain.height);
    expect(labelled.width).toBeGreaterThan(plain.width);
  });

  it("refuses a grid without images and odd measures", async () => {
    await expect(renderGrid({ rows: [] })).rejects.toThrow(ConfigError);
    await expect(renderGrid({ rows: [[undefined]] })).rejects.toThrow(ConfigError);
    const rows = [[solid(8, 8, [0, 0, 0])]];
    await expect(renderGrid({ rows, gap: -1 })).rejects.toThrow(ConfigError);
    await expect(renderGrid({ rows, scale: 0.5 })).rejects.toThrow(ConfigError);
    await expect(renderGrid({ rows: [[zeros([1, 8, 8])]] })).rejects.toThrow(ShapeError);
  });
});

describe("without any font on the machine", () => {
  let dir: string;
  beforeAll(async () => {
    dir = await mkdtemp(path.join(tmpdir(), "fera-plot-"));
  });
  afterAll(() => rm(dir, { recursive: true, force: true }));

  it("draws the same pixels", async () => {
    await writeFile(path.join(dir, "plot.svg"), plotSvg({ ...lines, width: 300, height: 200 }));
    await writeFile(path.join(dir, "fonts.conf"), `<?xml version="1.0"?><fontconfig></fontconfig>`);
    const script = `import sharp from "sharp"; process.stdout.write(await sharp(process.argv[1]).removeAlpha().raw().toBuffer());`;
    const draw = (env: NodeJS.ProcessEnv) =>
      execFileSync(process.execPath, ["--input-type=module", "-e", script, path.join(dir, "plot.svg")], {
        env: { ...process.env, ...env },
        stdio: ["ignore", "pipe", "ignore"],
      });
    const here = draw({});
    const bare = draw({ FONTCONFIG_FILE: path.join(dir, "fonts.conf") });
    expect(bare.equals(here)).toBe(true);
    expect(has({ width: 300, height: 200, data: bare }, isDark)).toBe(true);
  });
});
