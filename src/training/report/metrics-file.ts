// metrics.jsonl: a line per step, and one for what is measured before the first. Written by the trainer, read by whatever
// draws or tells how a training went. Node only.

import { appendFile, readFile, writeFile } from "node:fs/promises";
import { FormatError } from "../../errors.js";
import { reasonOf, writeFileAtomically } from "../../storage/file-access.js";
import { isObject } from "../../storage/json.js";
import { NO_TERMS, type StepMeasures, type StepReport } from "./step-report.js";

/** A line: a step's report and measures; of step 0, measures alone. */
export type MetricsLine = { step: number } & Partial<StepReport> & StepMeasures;

/** Weight of what came before in the smoothed loss: about the last 50 steps count. */
const SMOOTHING = 0.98;

/** The file that a training appends to. */
export class MetricsFile {
  constructor(readonly path: string) {}

  /** Starts anew. */
  async clear(): Promise<void> {
    await this.writing(writeFile(this.path, ""));
  }

  /** @throws {FormatError} If it cannot be written. */
  async append(line: object): Promise<void> {
    await this.writing(appendFile(this.path, `${JSON.stringify(line)}\n`));
  }

  /** Forgets the lines of later steps, which will be written again, and one that was cut off. */
  async truncate(step: number): Promise<void> {
    const text = await readFile(this.path, "utf8").catch(() => undefined);
    const lines = (text ?? "").split("\n").filter((line) => {
      const report = parsed(line);
      return isObject(report) && typeof report.step === "number" && report.step <= step;
    });
    const kept = lines.map((line) => `${line}\n`).join("");
    if (kept !== text) await writeFileAtomically(this.path, [new TextEncoder().encode(kept)]);
  }

  private async writing(work: Promise<void>): Promise<void> {
    await work.catch((cause: NodeJS.ErrnoException) => {
      throw new FormatError(this.path, `cannot be written: ${reasonOf(cause)}.`, { cause });
    });
  }
}

/** Reads all lines but a last one that was cut off. @throws {FormatError} If the file is missing or malformed. */
export async function readMetrics(path: string): Promise<MetricsLine[]> {
  const text = await readFile(path, "utf8").catch((cause: Error) => {
    throw new FormatError(path, `cannot be read: ${cause.message}.`, { cause });
  });
  // Behind the last line break is nothing, or a line that was cut off.
  return text
    .split("\n")
    .slice(0, -1)
    .flatMap((line, index) => (line === "" ? [] : [parseLine(line, `${path} line ${index + 1}`)]));
}

function parseLine(line: string, where: string): MetricsLine {
  let row: unknown;
  try {
    row = JSON.parse(line);
  } catch (cause) {
    throw new FormatError(where, `is not valid JSON: ${(cause as Error).message}.`, { cause });
  }
  const isWhole = isObject(row) && typeof row.step === "number" && (row.step === 0 || typeof row.loss === "number");
  if (!isWhole) throw new FormatError(where, 'must have a "step" and a "loss".');
  return row as unknown as MetricsLine;
}

/** Losses by step. */
export interface LossCurve {
  steps: number[];
  losses: number[];
  /** Exponential mean, without the bias of its start. */
  smoothed: number[];
  /** The terms that the loss is the sum of, by name, smoothed alike. */
  terms: ReadonlyMap<string, number[]>;
}

/** The losses of the steps that are done. */
export function lossCurve(lines: readonly MetricsLine[]): LossCurve {
  const terms = new Map<string, number[]>();
  const curve: LossCurve = { steps: [], losses: [], smoothed: [], terms };
  const smooth = smoother();
  const smoothTerm = new Map<string, (value: number) => number>();
  for (const { step, loss, ...others } of lines) {
    if (loss === undefined) continue;
    curve.steps.push(step);
    curve.losses.push(loss);
    curve.smoothed.push(smooth(loss));
    for (const [name, value] of Object.entries(others)) {
      if (NO_TERMS.has(name) || typeof value !== "number") continue;
      if (!terms.has(name)) {
        terms.set(name, []);
        smoothTerm.set(name, smoother());
      }
      terms.get(name)!.push(smoothTerm.get(name)!(value));
    }
  }
  return curve;
}

/** A running mean m ← s·m + (1 − s)·x, divided by 1 − sᵏ after k values. */
export function smoother(smoothing = SMOOTHING): (value: number) => number {
  let mean = 0;
  let weight = 0;
  return (value) => {
    mean = smoothing * mean + (1 - smoothing) * value;
    weight = smoothing * weight + (1 - smoothing);
    return mean / weight;
  };
}

/** Undefined where the text is no JSON. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
