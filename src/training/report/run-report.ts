// What a training leaves for people to look at: plots as pictures, and report.html with everything in one page. Node only.

import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { encodeImage, readImage, readImageSize, writePng } from "../../images/image-file.js";
import { plotSvg, renderPlot } from "../../images/plot.js";
import { writeFileAtomically } from "../../storage/file-access.js";
import { isObject } from "../../storage/json.js";
import { isPromptFolder, outputPath, PROMPT_FILE } from "../output-folder.js";
import { escapeHtml, htmlFigure, htmlImage, htmlPage, htmlTable, type PageSection } from "./html-page.js";
import { lossCurve } from "./loss-curve.js";
import { type MetricsLine, readMetrics } from "./metrics-file.js";
import { type RunPlot, runPlots } from "./run-plots.js";

/** What a report tells beside the metrics. */
export interface RunReportOptions {
  title: string;
  /** As it can be typed. */
  command?: string;
  /** Options with their values; what is undefined is left out. */
  settings: Readonly<Record<string, unknown>>;
  /** Whether all steps are done. */
  finished: boolean;
}

/** What {@link writeRunReport} wrote. */
export interface RunReport {
  report: string;
  /** The plots' files by name; fewer where there are too few steps for a curve. */
  plots: ReadonlyMap<string, string>;
}

/** Widest picture in the page, in pixels. */
const PICTURE_WIDTH = 2400;
const PICTURE_QUALITY = 0.85;

/**
 * Draws the plots and writes the report of a training's folder, from what it has logged and drawn so far.
 *
 * @throws {FormatError} If the metrics are missing or malformed, or a file cannot be written.
 */
export async function writeRunReport(output: string, options: RunReportOptions): Promise<RunReport> {
  const lines = await readMetrics(outputPath(output, "metrics"));
  const drawn = runPlots(lines);
  const plots = new Map<string, string>();
  for (const { name, file, options: plot } of drawn) {
    if (file === undefined) continue;
    await writePng(outputPath(output, file), await renderPlot(plot));
    plots.set(name, outputPath(output, file));
  }
  const sections: PageSection[] = [];
  const pictures = await promptPictures(output);
  if (pictures !== "") sections.push({ title: "Samples", html: `<div class="pictures">${pictures}</div>` });
  if (drawn.length > 0) {
    sections.push({ title: "Curves", html: `<div class="plots">${drawn.map(plotFigure).join("")}</div>` });
  }
  const settings = Object.entries(options.settings).filter(([, value]) => value !== undefined);
  sections.push({
    title: "Settings",
    html: htmlTable(settings.map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)])),
  });
  if (options.command) sections.push({ title: "Command", html: `<pre>${escapeHtml(options.command)}</pre>` });
  const page = htmlPage(options.title, summary(lines, options), sections);
  const report = outputPath(output, "report");
  await writeFileAtomically(report, [new TextEncoder().encode(page)]);
  return { report, plots };
}

const plotFigure = ({ options }: RunPlot): string => {
  const svg = plotSvg({ ...options, title: "" }).replace(
    "<svg ",
    `<svg role="img" aria-label="${escapeHtml(options.title ?? "")}" `,
  );
  return htmlFigure(svg, options.title ?? "");
};

function summary(lines: readonly MetricsLine[], { finished }: RunReportOptions): string[] {
  const { steps, smoothed } = lossCurve(lines);
  const last = steps.at(-1) ?? 0;
  const of = lines.findLast((line) => line.steps !== undefined)?.steps ?? last;
  const result = [finished ? `${last} steps, finished` : `${last} of ${of} steps, not finished`];
  if (smoothed.length > 0) result.push(`Training loss ${smoothed.at(-1)!.toFixed(4)} (mean of the last steps)`);
  const validated = lines.flatMap(({ step, validation }) => (validation ? [{ step, loss: validation.loss }] : []));
  const first = validated[0];
  if (first) {
    const best = validated.reduce((low, each) => (each.loss < low.loss ? each : low));
    const [from, to] = [first, validated.at(-1)!].map(({ loss }) => loss.toFixed(5));
    result.push(
      `Validation loss ${from} at step ${first.step}, ${to} at step ${validated.at(-1)!.step}; ` +
        `lowest ${best.loss.toFixed(5)} at step ${best.step}`,
    );
  }
  return result;
}

/** Each prompt's picture, small enough for a page. */
async function promptPictures(output: string): Promise<string> {
  const folder = outputPath(output, "validation");
  const names = (await readdir(folder).catch(() => [] as string[])).filter(isPromptFolder).sort();
  const figures: string[] = [];
  for (const name of names) {
    const path = join(folder, `${name}.png`);
    const prompt = await promptOf(join(folder, name));
    const size = await readImageSize(path).catch(() => undefined);
    if (prompt === undefined || !size) continue;
    const image = await readImage(path, size.width > PICTURE_WIDTH ? { width: PICTURE_WIDTH } : {});
    const bytes = await encodeImage(image, "image/webp", { quality: PICTURE_QUALITY });
    const description = `${prompt}: without the adapter, then step by step`;
    figures.push(htmlFigure(htmlImage(bytes, "image/webp", description), prompt));
  }
  return figures.join("");
}

async function promptOf(folder: string): Promise<string | undefined> {
  const text = await readFile(join(folder, PROMPT_FILE), "utf8").catch(() => "");
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) && typeof value.prompt === "string" ? value.prompt : undefined;
  } catch {
    return undefined;
  }
}
