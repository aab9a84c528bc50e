// A training as a process of its own: `fera train`, whose output goes into a file, so that it goes on and can be read
// whatever becomes of the studio. Node only.

import { spawn } from "node:child_process";
import { type FileHandle, open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { makeFolder, writeFileAtomically } from "../storage/file-access.js";
import type { TrainSettings } from "./protocol.js";
import { isTrainer } from "./run-folder.js";
import { STUDIO_FOLDER } from "./run-records.js";

/** How a process ended. */
export interface ProcessEnd {
  /** Undefined where nobody saw it. */
  code?: number | null;
}

/** A training under way. */
export interface RunProcess {
  pid: number;
  ended: Promise<ProcessEnd>;
}

/** Starts the trainings of a runs folder. */
export class RunProcesses {
  /** @param program - What is run with Node: the program `fera` and nothing else. */
  constructor(
    private readonly runs: string,
    private readonly program: string,
  ) {}

  /** @param isResumed - Whether a training is in the folder already. */
  async start(id: string, config: TrainSettings, isResumed: boolean): Promise<RunProcess> {
    await makeFolder(this.folder);
    const file = join(this.folder, `${id}.json`);
    await writeFileAtomically(file, [new TextEncoder().encode(`${JSON.stringify(config, undefined, 1)}\n`)]);
    const log = await open(this.logPath(id), "w");
    try {
      return await this.spawn(
        ["train", "--config", file, "--output", join(this.runs, id), ...(isResumed ? ["--resume"] : [])],
        log,
      );
    } finally {
      await log.close();
    }
  }

  private spawn(words: readonly string[], log: FileHandle): Promise<RunProcess> {
    // In a group of its own: Ctrl-C in the terminal is the studio's, which ends its trainings by itself.
    const child = spawn(process.execPath, [...process.execArgv, this.program, ...words], {
      detached: true,
      stdio: ["ignore", log.fd, log.fd],
    });
    const ended = new Promise<ProcessEnd>((resolve) => child.once("exit", (code) => resolve({ code })));
    return new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("spawn", () => resolve({ pid: child.pid!, ended }));
    });
  }

  /** One that an earlier studio started: all that is seen of it is when it has gone. */
  adopt(pid: number): RunProcess {
    const ended = new Promise<ProcessEnd>((resolve) => {
      const timer = setInterval(async () => {
        if (await isTrainer(pid)) return;
        clearInterval(timer);
        resolve({});
      }, 250);
      timer.unref();
    });
    return { pid, ended };
  }

  /** What it said last, for the list. */
  async lastLine(id: string): Promise<string | undefined> {
    const lines = (await this.log(id)).split("\n");
    // What it is doing: not what it thinks of the data, nor lists.
    const doing = lines.findLast(
      (line) => /^\S/.test(line) && !/^(?:warning|skipped|data|captions|buckets) /.test(line),
    );
    return doing?.replace(/\s+/g, " ").trim();
  }

  /** Why it failed, in its own words; undefined where it said nothing of it. */
  async error(id: string): Promise<string | undefined> {
    return errorIn(await this.log(id));
  }

  private async log(id: string): Promise<string> {
    return (await readFile(this.logPath(id), "utf8").catch(() => "")).slice(-LOG_CHARACTERS);
  }

  private get folder(): string {
    return join(this.runs, STUDIO_FOLDER, "trainings");
  }

  private logPath(id: string): string {
    return join(this.folder, `${id}.log`);
  }
}

const LOG_CHARACTERS = 2 ** 16;

/** The message of `fera` in what it printed, without the program's name and without its usage. */
export function errorIn(log: string): string | undefined {
  const lines = log.split("\n");
  const first = lines.findLastIndex((line) => /^fera(?: train)?: /.test(line));
  if (first < 0) return lines.findLast((line) => line.trim() !== "")?.trim();
  const end = lines.findIndex((line, index) => index > first && /^(?:Usage: |Run it again with --debug)/.test(line));
  const message = lines.slice(first, end < 0 ? undefined : end).join("\n");
  return message.replace(/^fera(?: train)?: /, "").trim();
}
