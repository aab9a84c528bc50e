// What the folder of a run tells of it, of the studio or the command line: read only. Node only.

import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { readJsonObject } from "../storage/file-access.js";
import { isAlive, lockHolder } from "../storage/file-lock.js";
import { latestCheckpoint } from "../training/index.js";
import { isPromptFolder, OUTPUT_NAMES, outputPath, PROMPT_FILE } from "../training/output-folder.js";
import { lastMetrics } from "./metrics-part.js";
import { promptPictures } from "./prompt-pictures.js";
import type { MetricsLine, PromptPictures } from "./protocol.js";

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

  /** A folder in which nobody trained when it was read last, as it was then: without a look at the disk. */
  resting(folder: string): RunFiles | undefined {
    const files = this.known.get(folder)?.files;
    return files?.trainer ? undefined : files;
  }

  /** As {@link readRunFiles}. */
  async read(folder: string): Promise<RunFiles | undefined> {
    const stamp = await stampOf(folder);
    const known = this.known.get(folder);
    if (known?.stamp === stamp) {
      // A process ends without a trace in its folder.
      if (known.files?.trainer) known.files = { ...known.files, trainer: await readTrainer(folder) };
      return known.files;
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

/** Who trains in the folder now. */
export async function readTrainer(folder: string): Promise<RunFiles["trainer"]> {
  const holder = await lockHolder(outputPath(folder, "lock"));
  return holder?.pid === undefined || (await isTrainer(holder.pid)) ? holder : undefined;
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
  const read = (file: string) => readJsonObject(join(folder, file)).catch(() => undefined);
  const about = await read(PROMPT_FILE);
  if (typeof about?.prompt !== "string") return undefined;
  return promptPictures({
    prompt: about.prompt,
    folder: `${OUTPUT_NAMES.validation}/${name}`,
    names: await readdir(folder).catch(() => [] as string[]),
    readObject: read,
  });
}
