// The study as the command runs it: what is asked for, the runs, the page. Node only.

import { availableParallelism } from "node:os";
import { targetLayers } from "../adapters/index.js";
import { EMBEDDED_MODEL } from "../demo/index.js";
import { ConfigError } from "../errors.js";
import { loadPipeline } from "../pipelines/index.js";
import type { IconStyle } from "../training/data/icons.js";
import { ALL_METHODS } from "./all-methods.js";
import { type Budget, budgetOf } from "./budget.js";
import { methodNamed } from "./methods.js";
import { PARTS, type Part } from "./parts.js";
import { makePlan, type Plan } from "./plan.js";
import { PRESETS, type PresetName } from "./presets.js";
import type { RunRecord } from "./records.js";
import { writeEvidence } from "./report.js";
import { RunProcesses } from "./run-processes.js";
import { runTimes } from "./run-times.js";
import { type Execute, type Failure, runStudy, type StudyProgress } from "./runner.js";
import { hashModel, readRecords, readStudy, type Study, writeRecord, writeStudy } from "./study-folder.js";

/** What a study is asked for. */
export interface EvidenceOptions {
  /** A pipeline's folder; the embedded model by default. */
  model?: string | undefined;
  /** Folder of the page, the runs and what is needed to go on. */
  output: string;
  /** How large the study is: what follows from it where it is not given. */
  preset: PresetName;
  /** The preset's by default. */
  parts?: readonly Part[] | undefined;
  seeds: number;
  /** The preset's by default. */
  steps?: number | undefined;
  batchSize: number;
  /** Most held-out names; the preset's by default. */
  limit?: number | undefined;
  /** The preset's by default. */
  drawingSteps?: number | undefined;
  /** False takes one learning rate for all methods of a kind. */
  isTuned: boolean;
  /** Only these methods and styles; all by default. */
  methods?: readonly string[] | undefined;
  styles?: readonly IconStyle[] | undefined;
  processes: number;
  /** Of all processes together; the machine's by default. */
  threads?: number | undefined;
  /** No run is begun after so many minutes. */
  minutes?: number | undefined;
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
  const { byPart } = planOf(
    { ...options, parts: options.parts ?? PRESETS[options.preset].parts },
    prepared,
    records,
    true,
  );
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
 * @returns The page, what failed, and how many runs are left where time was up.
 * @throws {ConfigError} If the output folder holds a study with other settings, or a method or style is unknown.
 */
export async function runEvidence(
  options: EvidenceOptions,
): Promise<{ page: string; failures: Failure[]; left: number }> {
  const { output, processes, onProgress, onMessage, signal, minutes } = options;
  const parts = options.parts ?? PRESETS[options.preset].parts;
  const prepared = await prepare(options);
  await writeStudy(output, prepared.study);
  const records = await readRecords(output);
  const threads = Math.max(1, Math.floor((options.threads ?? availableParallelism()) / processes));
  const own = options.execute ? undefined : new RunProcesses(threads);
  const { failures, left } = await runStudy({
    plan: (known, isEstimate) => planOf({ ...options, parts }, prepared, known, isEstimate),
    ...{ records, processes, signal, minutes, execute: options.execute ?? own!.execute },
    keep: (record) => writeRecord(output, record),
    ...(onProgress && { onProgress }),
    ...(onMessage && { onMessage }),
  }).finally(() => own?.close());
  return { page: await reportOf(output, prepared.study, prepared.budget, records), failures, left };
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
  const { model = EMBEDDED_MODEL, batchSize, preset, seeds, isTuned } = options;
  const { steps, limit, drawingSteps } = { ...PRESETS[preset], ...given(options) };
  for (const name of options.methods ?? []) methodNamed(name, ALL_METHODS);
  const settings = { model, modelHash: await hashModel(model), batchSize, limit, drawingSteps };
  return { study: { settings, preset, steps, seeds, isTuned }, budget: await budgetOfModel(model) };
}

/** What is given in place of the preset's. */
function given({ steps, limit, drawingSteps }: EvidenceOptions): {
  steps?: number;
  limit?: number;
  drawingSteps?: number;
} {
  return {
    ...(steps !== undefined && { steps }),
    ...(limit !== undefined && { limit }),
    ...(drawingSteps !== undefined && { drawingSteps }),
  };
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
  const { settings, preset, steps, seeds, isTuned } = study;
  return makePlan({ preset, parts, seeds, steps, isTuned, methods, styles, budget, settings, records, isEstimate });
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
