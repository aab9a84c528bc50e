// What the folder of a run tells of it, whoever started it: read only. Node only.

import { readdir, readFile, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { readJsonObject } from "../storage/file-access.js";
import { isObject } from "../storage/json.js";
import { latestCheckpoint } from "../training/index.js";
import { isPromptFolder, OUTPUT_NAMES, outputPath, PROMPT_FILE } from "../training/output-folder.js";
import { lastMetrics } from "./metrics-part.js";
import type { MetricsLine, PromptPictures, RoutingTrace } from "./protocol.js";

/** What lies in the folder of a run. */
export interface RunFiles {
  /** run.json, without the version that wrote it. */
  settings: Record<string, unknown>;
  last: MetricsLine | undefined;
  hasCheckpoint: boolean;
  /** The process that trains there now, if one does; of another machine without a number. */
  trainer: { pid?: number } | undefined;
  /** The adapter's name in the folder, once it is there. */
  adapterFile: string | undefined;
  changedAt: number;
}

/** Reads folders, those that have not changed from memory. */
export class RunFolders {
  private readonly known = new Map<string, { stamp: string; files: RunFiles | undefined }>();

  /** As {@link readRunFiles}. */
  async read(folder: string): Promise<RunFiles | undefined> {
    const stamp = await stampOf(folder);
    const known = this.known.get(folder);
    if (known?.stamp === stamp) {
      // A process ends without a trace in its folder.
      return known.files && { ...known.files, trainer: known.files.trainer && (await readTrainer(folder)) };
    }
    const files = await readRunFiles(folder);
    this.known.set(folder, { stamp, files });
    return files;
  }
}

/** Changes with what {@link readRunFiles} reads. */
async function stampOf(folder: string): Promise<string> {
  const paths = [folder, outputPath(folder, "metrics"), outputPath(folder, "run"), outputPath(folder, "checkpoints")];
  const known = await Promise.all(paths.map((path) => stat(path).catch(() => undefined)));
  return known.map((each) => `${each?.mtimeMs} ${each?.size}`).join(",");
}

/** Reads a folder; undefined where no training wrote it. */
export async function readRunFiles(folder: string): Promise<RunFiles | undefined> {
  const names = await readdir(folder).catch(() => [] as string[]);
  if (!names.includes(OUTPUT_NAMES.run)) return undefined;
  const settings = await readJsonObject(outputPath(folder, "run")).catch(() => ({}) as Record<string, unknown>);
  delete settings.fera;
  const metrics = outputPath(folder, "metrics");
  const [last, checkpoint, trainer, changedAt] = await Promise.all([
    lastMetrics(metrics),
    latestCheckpoint(outputPath(folder, "checkpoints")),
    readTrainer(folder),
    newest([metrics, outputPath(folder, "run")]),
  ]);
  const { adapterName } = settings;
  const adapterFile = typeof adapterName === "string" && names.includes(adapterName) ? adapterName : undefined;
  return { settings, last, hasCheckpoint: checkpoint !== undefined, trainer, adapterFile, changedAt };
}

/** A lock of another machine whose holder has shown no sign of life for so long is left over. */
const SIGN_OF_LIFE_MS = 30_000;

/** Who trains in the folder now. */
export async function readTrainer(folder: string): Promise<RunFiles["trainer"]> {
  const lock = outputPath(folder, "lock");
  const text = await readFile(lock, "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  const owner = parsed(text);
  if (isObject(owner) && owner.host === hostname() && Number.isSafeInteger(owner.pid)) {
    return (await isTrainer(owner.pid as number)) ? { pid: owner.pid as number } : undefined;
  }
  const known = await stat(lock).catch(() => undefined);
  return known && Date.now() - known.mtimeMs < SIGN_OF_LIFE_MS ? {} : undefined;
}

/**
 * Whether a process trains. A number that a lock names may be another program's by now, as after a power failure; where the
 * system tells what a process was started with (Linux), that is looked at. A killed one that nobody has waited for has no
 * words there any more.
 */
export async function isTrainer(pid: number): Promise<boolean> {
  if (!isAlive(pid)) return false;
  const words = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => undefined);
  return words === undefined || words.split("\0").includes("train");
}

function isAlive(pid: number): boolean {
  // Of 0 and below are groups of processes.
  if (pid < 1) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

async function newest(paths: readonly string[]): Promise<number> {
  const times = await Promise.all(
    paths.map((path) =>
      stat(path).then(
        ({ mtimeMs }) => mtimeMs,
        () => 0,
      ),
    ),
  );
  return Math.max(...times);
}

/** The pictures of a run, prompt by prompt; a resumed run with other prompts has those of the earlier ones, too. */
export async function readPictures(folder: string): Promise<PromptPictures[]> {
  const validation = outputPath(folder, "validation");
  const folders = (await readdir(validation).catch(() => [] as string[])).filter(isPromptFolder).sort();
  const all = await Promise.all(folders.map((name) => readPromptFolder(validation, name)));
  return all.filter((pictures) => pictures !== undefined);
}

async function readPromptFolder(validation: string, name: string): Promise<PromptPictures | undefined> {
  const folder = join(validation, name);
  const about = await readJsonObject(join(folder, PROMPT_FILE)).catch(() => undefined);
  if (typeof about?.prompt !== "string") return undefined;
  const without: string[] = [];
  const steps = new Map<number, { files: string[]; routes: RoutingTrace[] }>();
  const names = (await readdir(folder).catch(() => [] as string[])).sort(bySeed);
  for (const file of names) {
    const [, stem, step, number = "1"] = /^(without|step-(\d{1,15}))(?:-([1-9]\d{0,3}))?\.png$/.exec(file) ?? [];
    // Four digits: a list has a place for every number up to the largest, and a name may say any.
    if (stem === undefined) continue;
    const path = `${OUTPUT_NAMES.validation}/${name}/${file}`;
    if (step === undefined) {
      without[Number(number) - 1] = path;
      continue;
    }
    const known = steps.get(Number(step)) ?? { files: [], routes: [] };
    steps.set(Number(step), known);
    known.files[Number(number) - 1] = path;
    const route = file.replace(/\.png$/, ".json");
    const trace = names.includes(route) ? await readTrace(join(folder, route)) : undefined;
    if (trace) known.routes[Number(number) - 1] = trace;
  }
  return {
    prompt: about.prompt,
    images: Math.max(without.length, ...[...steps.values()].map(({ files }) => files.length)),
    without: without.filter(Boolean),
    steps: [...steps]
      .sort(([a], [b]) => a - b)
      .map(([step, { files, routes }]) => ({
        step,
        files: files.filter(Boolean),
        // One for each picture, or none: they are told apart by their place.
        ...(routes.length > 0 && routes.length === files.length && { routes }),
      })),
  };
}

/** Undefined where the file is damaged: its picture is there all the same. */
async function readTrace(path: string): Promise<RoutingTrace | undefined> {
  const trace = await readJsonObject(path).catch(() => undefined);
  const { timesteps, energies, gates } = trace ?? {};
  if (!isNumbers(timesteps) || !isRows(energies, timesteps.length) || !isRows(gates, timesteps.length))
    return undefined;
  return { timesteps, energies, gates, weights: gates };
}

const isNumbers = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((each) => typeof each === "number");

/** Whether a value is `[S][N][K]`: for every timestep rows of numbers, all of one length. */
function isRows(value: unknown, steps: number): value is number[][][] {
  if (!Array.isArray(value) || value.length !== steps || !value.every(Array.isArray)) return false;
  const rows: unknown[] = value.flat();
  return rows.every((row) => isNumbers(row) && row.length === (rows[0] as number[]).length);
}

const bySeed = (a: string, b: string): number => a.length - b.length || (a < b ? -1 : 1);

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
