// Runs in the browser's storage, a folder each with the names that the command line writes. For the page and its worker.

import { metricsLineIn } from "../../../src/studio/metrics-line.js";
import { promptPictures } from "../../../src/studio/prompt-pictures.js";
import type { MetricsPart, PromptPictures, RunDetails, RunSummary } from "../../../src/studio/protocol.js";
import { PROMPT_FILE } from "../../../src/training/output-names.js";
import type { MetricsLine } from "../../../src/training/report/metrics-file.js";
import { findFile, findFolder, makeFolder, namesIn, RUNS_FOLDER, readObject, readText } from "./files.js";
import { runLock } from "./messages.js";

/** Names in a run's folder; all but the last are the command line's. */
export const RUN_FILES = {
  settings: "run.json",
  metrics: "metrics.jsonl",
  adapter: "adapter.safetensors",
  pictures: "validation",
  /** How it ended, and what it took: {@link RunRecord}. */
  record: "studio.json",
} as const;

/** What is kept of a run beside its settings and metrics. */
export interface RunRecord {
  /** "running" where it was cut off, or is at work. */
  state: "running" | "stopped" | "finished" | "failed";
  error?: string;
  /** What to type for the same. */
  command: string;
  peakMemoryBytes?: number;
  /** Of the steps alone. */
  secondsPerStep?: number;
  /** Of everything before the first step, and of one drawing of all prompts. */
  secondsBefore?: number;
  secondsPerDrawing?: number;
}

/** The folder of all runs. */
export const runsFolder = (root: FileSystemDirectoryHandle): Promise<FileSystemDirectoryHandle> =>
  makeFolder(root, RUNS_FOLDER);

/** All runs that are there, the newest first. */
export async function readRuns(root: FileSystemDirectoryHandle): Promise<RunSummary[]> {
  const runs = await runsFolder(root);
  const names = await namesIn(runs, "directory");
  const held = await heldLocks();
  const read = await Promise.all(
    names.map(async (name) => {
      const folder = await findFolder(runs, name);
      return folder && readRun(folder, name, held);
    }),
  );
  return read.filter((run) => run !== undefined).sort((a, b) => b.changedAt - a.changedAt);
}

/** A run as its files tell it; undefined where there are none. */
export async function readRun(
  folder: FileSystemDirectoryHandle,
  id: string,
  held: ReadonlySet<string>,
): Promise<RunSummary | undefined> {
  const settings = await readObject(folder, RUN_FILES.settings);
  if (!settings) return undefined;
  const record = (await readObject(folder, RUN_FILES.record)) as RunRecord | undefined;
  const metrics = await findFile(folder, RUN_FILES.metrics);
  const last = lastLine(await readText(folder, RUN_FILES.metrics));
  const isAlive = held.has(runLock(id));
  // What is not at work and did not end was cut off: the tab was closed or loaded anew.
  const state = record === undefined || record.state === "running" ? (isAlive ? "running" : "stopped") : record.state;
  const step = last?.step ?? 0;
  return {
    id,
    state,
    step,
    steps: Number(settings.steps ?? 0),
    ...(last?.loss !== undefined && { loss: last.loss }),
    ...(last?.stepsPerSecond !== undefined && { stepsPerSecond: last.stepsPerSecond }),
    ...(record?.peakMemoryBytes !== undefined && { peakMemoryBytes: record.peakMemoryBytes }),
    ...(isAlive && { activity: "it runs in another tab" }),
    ...(record?.error !== undefined && { error: record.error }),
    model: String(settings.model ?? ""),
    adapterKind: String(settings.adapter ?? "fera"),
    changedAt: metrics?.lastModified ?? (await findFile(folder, RUN_FILES.settings))?.lastModified ?? 0,
    canResume: false,
    isOurs: !isAlive,
  };
}

/** All of a run but its metrics. @throws {Error} If there is none. */
export async function readDetails(root: FileSystemDirectoryHandle, summary: RunSummary): Promise<RunDetails> {
  const folder = await findFolder(await runsFolder(root), summary.id);
  const settings = folder && (await readObject(folder, RUN_FILES.settings));
  if (!folder || !settings) throw new Error(`There is no run "${summary.id}" any more.`);
  const { fera: _, ...shown } = settings;
  const record = (await readObject(folder, RUN_FILES.record)) as RunRecord | undefined;
  const hasAdapter = (await findFile(folder, RUN_FILES.adapter)) !== undefined;
  return {
    ...summary,
    settings: shown,
    command: record?.command ?? "npx fera train",
    pictures: await readPictures(folder),
    ...(hasAdapter && { adapterFile: RUN_FILES.adapter, adapterId: summary.id }),
  };
}

/** Lines from a place on. */
export async function readMetricsFrom(root: FileSystemDirectoryHandle, id: string, from: number): Promise<MetricsPart> {
  const folder = await findFolder(await runsFolder(root), id);
  const text = (folder && (await readText(folder, RUN_FILES.metrics))) ?? "";
  const isReset = text.length < from;
  const start = isReset ? 0 : from;
  // Behind the last line break is nothing, or a line that was cut off.
  const end = text.lastIndexOf("\n") + 1;
  const lines = text.slice(start, Math.max(start, end)).split("\n");
  return { lines: lines.flatMap((line) => metricsLineIn(line) ?? []), next: Math.max(start, end), isReset };
}

async function readPictures(run: FileSystemDirectoryHandle): Promise<PromptPictures[]> {
  const folder = await findFolder(run, RUN_FILES.pictures);
  if (!folder) return [];
  const all: PromptPictures[] = [];
  for (const name of await namesIn(folder, "directory")) {
    const ofPrompt = (await findFolder(folder, name))!;
    const about = await readObject(ofPrompt, PROMPT_FILE);
    if (typeof about?.prompt !== "string") continue;
    const pictures = await promptPictures({
      prompt: about.prompt,
      folder: `${RUN_FILES.pictures}/${name}`,
      names: await namesIn(ofPrompt, "file"),
      readObject: (file) => readObject(ofPrompt, file),
    });
    all.push(pictures);
  }
  return all;
}

/** Names of all locks that are held by some tab. */
export async function heldLocks(): Promise<ReadonlySet<string>> {
  const { held = [] } = await navigator.locks.query();
  return new Set(held.flatMap(({ name }) => name ?? []));
}

function lastLine(text: string | undefined): MetricsLine | undefined {
  const end = (text ?? "").lastIndexOf("\n");
  if (end < 0) return undefined;
  const lines = text!.slice(Math.max(0, end - 20_000), end).split("\n");
  return metricsLineIn(lines.at(-1)!);
}
