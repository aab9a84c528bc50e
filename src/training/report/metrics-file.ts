// metrics.jsonl: a line per step, and one for what is measured before the first. Written by the trainer, read by whatever
// draws or tells how a training went. Node only.

import { appendFile, readFile, writeFile } from "node:fs/promises";
import { FormatError } from "../../errors.js";
import { reasonOf, writeFileAtomically } from "../../storage/file-access.js";
import { isObject, jsonIn } from "../../storage/json.js";
import type { StepMeasures, StepReport } from "./step-report.js";

/** A line: a step's report and measures; of step 0, measures alone. */
export type MetricsLine = { step: number } & Partial<StepReport> & StepMeasures;

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
      const report = jsonIn(line);
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
