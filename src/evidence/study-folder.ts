// A study's folder: what it was asked for, a file for every run, and all runs together as they are published. Node only.

import { createHash } from "node:crypto";
import { readdir, readFile, stat } from "node:fs/promises";
import { join, relative } from "node:path";
import { ConfigError, FormatError } from "../errors.js";
import { makeFolder, writeFileAtomically } from "../storage/file-access.js";
import { isObject, jsonIn } from "../storage/json.js";
import { PRESETS, type PresetName } from "./presets.js";
import type { RunRecord, StudySettings } from "./records.js";
import { taskName } from "./tasks.js";

/** What a study's folder says of it. */
export interface Study {
  settings: StudySettings;
  preset: PresetName;
  steps: number;
  seeds: number;
  isTuned: boolean;
}

const STUDY_FILE = "study.json";
const RUNS_FOLDER = "runs";
/** All runs together. */
export const RUNS_FILE = "runs.json";

/** The study in a folder; undefined where there is none. @throws {FormatError} If its file is damaged. */
export async function readStudy(folder: string): Promise<Study | undefined> {
  const file = join(folder, STUDY_FILE);
  const text = await readFile(file, "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  const value = jsonIn(text);
  if (isObject(value) && isObject(value.settings) && typeof value.steps === "number" && isPreset(value.preset)) {
    return value as unknown as Study;
  }
  throw new FormatError(file, "describes no study; it must have settings, a preset and steps. Take another --output.");
}

const isPreset = (value: unknown): boolean => typeof value === "string" && Object.hasOwn(PRESETS, value);

/**
 * Notes what a study is asked for. More or fewer seeds than before are the same study.
 *
 * @throws {ConfigError} If the folder holds a study of other settings, whose runs would be mixed with these.
 */
export async function writeStudy(folder: string, study: Study): Promise<void> {
  const before = await readStudy(folder);
  if (before) {
    const was = comparable(before);
    const changes = Object.entries(comparable(study))
      .filter(([name, value]) => was[name] !== value)
      .map(([name, value]) => `${name} was ${was[name]}, is ${value}`);
    if (changes.length > 0) {
      throw new ConfigError(
        `output folder ${folder}: holds a study with other settings: ${changes.join("; ")}. ` +
          "Give the same ones, or choose another --output.",
      );
    }
  }
  await makeFolder(join(folder, RUNS_FOLDER));
  await writeJson(join(folder, STUDY_FILE), { ...study, settings: withoutPath(study.settings) }, 1);
}

function comparable({ settings, preset, steps, isTuned }: Study): Record<string, string> {
  const { model: _, ...rest } = settings;
  const values = { ...rest, limit: rest.limit ?? "all", preset, steps, tuned: isTuned };
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, String(value)]));
}

/** Every run that a folder has, by id: in files of their own, and in the published file. A damaged one is done again. */
export async function readRecords(folder: string): Promise<Map<string, RunRecord>> {
  const records = new Map<string, RunRecord>();
  const published = jsonIn(await readFile(join(folder, RUNS_FILE), "utf8").catch(() => ""));
  if (isObject(published) && Array.isArray(published.runs)) for (const run of published.runs) add(records, run);
  const files = await readdir(join(folder, RUNS_FOLDER)).catch(() => []);
  for (const file of files.filter((name) => name.endsWith(".json")).sort()) {
    add(records, jsonIn(await readFile(join(folder, RUNS_FOLDER, file), "utf8")));
  }
  return records;
}

function add(records: Map<string, RunRecord>, value: unknown): void {
  if (!isObject(value) || !isObject(value.spec) || typeof value.spec.id !== "string") return;
  const { method: _, task: __, seed: ___, ...record } = value;
  records.set(value.spec.id, record as unknown as RunRecord);
}

/** Writes a run's file, whole or not at all. */
export function writeRecord(folder: string, record: RunRecord): Promise<void> {
  return writeJson(join(folder, RUNS_FOLDER, `${record.spec.id}.json`), publishable(record));
}

const publishable = (record: RunRecord): RunRecord => ({
  ...record,
  spec: { ...record.spec, settings: withoutPath(record.spec.settings) },
});

/** Where the model lies on this machine is nobody's business; its hash tells which it is. */
const withoutPath = (settings: StudySettings): StudySettings => ({ ...settings, model: "" });

/** Writes all runs together. */
export function writeAllRuns(folder: string, study: Study, records: readonly RunRecord[]): Promise<void> {
  const runs = records.map((record) => {
    const { method, task, seed } = record.spec;
    return { method, task: taskName(task), seed, ...publishable(record) };
  });
  const lines = runs.map((run) => JSON.stringify(run, rounded));
  const head = JSON.stringify({ ...study, settings: withoutPath(study.settings) });
  const text = `{"study":${head},"runs":[\n${lines.join(",\n")}\n]}\n`;
  return writeFileAtomically(join(folder, RUNS_FILE), [new TextEncoder().encode(text)]);
}

/** Writes a value as JSON. */
export function writeJson(file: string, value: unknown, indent?: number): Promise<void> {
  return writeFileAtomically(file, [new TextEncoder().encode(`${JSON.stringify(value, rounded, indent)}\n`)]);
}

/** Six digits are more than any measurement has. */
function rounded(_key: string, value: unknown): unknown {
  return typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(6)) : value;
}

/** A hash of a model's files, by their paths and bytes. @throws {FormatError} If the folder cannot be read. */
export async function hashModel(folder: string): Promise<string> {
  const hash = createHash("sha256");
  let files: string[];
  try {
    const entries = await readdir(folder, { recursive: true });
    files = entries.sort();
  } catch (cause) {
    throw new FormatError(folder, "cannot be read as a model's folder, which the study needs.", { cause });
  }
  for (const name of files) {
    const path = join(folder, name);
    if (!/\.(?:safetensors|json|txt)$/.test(name) || !(await stat(path)).isFile()) continue;
    hash.update(`${relative(folder, path)}\n`).update(await readFile(path));
  }
  return hash.digest("hex").slice(0, 16);
}
