// The study as the command runs it: what is asked for, the runs, the page. Node only.

import { availableParallelism } from "node:os";
import { targetLayers } from "../adapters/index.js";
import { EMBEDDED_MODEL } from "../demo/index.js";
import { ConfigError } from "../errors.js";
import { loadPipeline } from "../pipelines/index.js";
import type { IconStyle } from "../training/data/icons.js";
import { type Budget, budgetOf } from "./budget.js";
import { executeInProcess } from "./execute-in-process.js";
import { methodNamed } from "./methods.js";
import { ALL_METHODS, makePlan, PARTS, type Part, type Plan } from "./plan.js";
import type { RunRecord } from "./records.js";
import { writeEvidence } from "./report.js";
import { runTimes } from "./run-times.js";
import { type Execute, type Failure, runStudy, type StudyProgress } from "./runner.js";
import { hashModel, readRecords, readStudy, type Study, writeRecord, writeStudy } from "./study-folder.js";

/** What a study is asked for. */
export interface EvidenceOptions {
  /** A pipeline's folder; the embedded model by default. */
  model?: string | undefined;
  /** Folder of the page, the runs and what is needed to go on. */
  output: string;
  /** All by default. */
  parts?: readonly Part[] | undefined;
  seeds: number;
  steps: number;
  batchSize: number;
  /** Most held-out names; all by default. */
  limit?: number | undefined;
  drawingSteps: number;
  /** False takes one learning rate for all methods of a kind. */
  isTuned: boolean;
  /** Only these methods and styles; all by default. */
  methods?: readonly string[] | undefined;
  styles?: readonly IconStyle[] | undefined;
  processes: number;
  /** Of all processes together; the machine's by default. */
  threads?: number | undefined;
  /** In processes of their own by default. */
  execute?: Execute;
  onProgress?: (progress: StudyProgress) => void;
  onMessage?: (message: string) => void;
  signal?: AbortSignal | undefined;
}

export type EvidenceProgress = StudyProgress;

/** A part in a list. */
export interface ListedPart {
  part: Part;
  done: number;
  runs: number;
  /** Of one process, for what is not done. */
  seconds: number;
}

/** What the parts have to run, and about how long that takes: an estimate, as far as nothing has been run a guess. */
export async function listEvidence(options: EvidenceOptions): Promise<ListedPart[]> {
  const prepared = await prepare(options);
  const records = await readRecords(options.output);
  const { byPart } = planOf(options, prepared, records, true);
  const estimate = runTimes(records.values());
  const seen = new Set<string>();
  return [...byPart].map(([part, specs]) => {
    const fresh = specs.filter(({ id }) => !seen.has(id) && seen.add(id));
    const open = fresh.filter(({ id }) => !records.has(id));
    const seconds = open.reduce((sum, spec) => sum + estimate(spec), 0);
    return { part, done: fresh.length - open.length, runs: fresh.length, seconds };
  });
}

/**
 * Runs what is not there yet, and writes the page.
 *
 * @returns The page, and what failed.
 * @throws {ConfigError} If the output folder holds a study with other settings, or a method or style is unknown.
 */
export async function runEvidence(options: EvidenceOptions): Promise<{ page: string; failures: Failure[] }> {
  const { output, processes, onProgress, onMessage, signal } = options;
  const prepared = await prepare(options);
  await writeStudy(output, prepared.study);
  const records = await readRecords(output);
  const threads = Math.max(1, Math.floor((options.threads ?? availableParallelism()) / processes));
  const { failures } = await runStudy({
    plan: (known, isEstimate) => planOf(options, prepared, known, isEstimate),
    ...{ records, processes, signal, execute: options.execute ?? executeInProcess(threads) },
    keep: (record) => writeRecord(output, record),
    ...(onProgress && { onProgress }),
    ...(onMessage && { onMessage }),
  });
  return { page: await reportOf(output, prepared.study, prepared.budget, records), failures };
}

/** Writes the page of a study from what is there. @throws {ConfigError} If the folder holds no study. */
export async function reportEvidence(output: string, model?: string): Promise<string> {
  const study = await readStudy(output);
  if (!study) throw new ConfigError(`output folder ${output}: holds no study. Run one first, without --report.`);
  const budget = await budgetOfModel(model ?? EMBEDDED_MODEL);
  return reportOf(output, study, budget, await readRecords(output));
}

interface Prepared {
  study: Study;
  budget: Budget;
}

async function prepare(options: EvidenceOptions): Promise<Prepared> {
  const { model = EMBEDDED_MODEL, batchSize, limit, drawingSteps, steps, seeds, isTuned } = options;
  for (const name of options.methods ?? []) methodNamed(name, ALL_METHODS);
  const settings = { model, modelHash: await hashModel(model), batchSize, limit, drawingSteps };
  return { study: { settings, steps, seeds, isTuned }, budget: await budgetOfModel(model) };
}

async function budgetOfModel(model: string): Promise<Budget> {
  const pipeline = await loadPipeline(model);
  const budget = budgetOf(targetLayers(pipeline.denoiser));
  await pipeline.release();
  return budget;
}

function planOf(
  { parts = PARTS, methods, styles }: Pick<EvidenceOptions, "parts" | "methods" | "styles">,
  { study, budget }: Prepared,
  records: ReadonlyMap<string, RunRecord>,
  isEstimate = false,
): Plan {
  const { settings, steps, seeds, isTuned } = study;
  return makePlan({ parts, seeds, steps, isTuned, methods, styles, budget, settings, records, isEstimate });
}

/** Of all parts, whichever were asked for this time. */
function reportOf(
  output: string,
  study: Study,
  budget: Budget,
  records: ReadonlyMap<string, RunRecord>,
): Promise<string> {
  return writeEvidence(output, { study, budget, records, plan: planOf({}, { study, budget }, records) });
}
