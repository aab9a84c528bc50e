// Starts trainings one at a time, and ends them: queue, pause, resume, stop, remove. Node only.

import { readdir, rmdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { quoted } from "../errors.js";
import { describeSystemError, makeFolder } from "../storage/file-access.js";
import type { RunAction, TrainSettings } from "./protocol.js";
import { type RunFiles, readRunFiles, readTrainer } from "./run-folder.js";
import { runFolder } from "./run-id.js";
import { type ProcessEnd, type RunProcess, RunProcesses } from "./run-process.js";
import { type RunRecord, RunRecords } from "./run-records.js";
import { isAtWork } from "./run-states.js";
import { StudioError } from "./studio-error.js";

/** Settings of a {@link RunQueue}. */
export interface RunQueueOptions {
  runs: string;
  /** The program `fera`. */
  program: string;
  /** Deletes what a training wrote into a folder, and nothing else. @param adapter - Its path. */
  clearRun(output: string, adapter: string): Promise<void>;
  onChange(): void;
  /** Awaited before a training starts: whatever needs much memory gives it back. */
  beforeStart(): Promise<void>;
}

/** How a training ends when it is asked to. */
type Ending = "paused" | "stopped";

const LONGEST_NAME = 80;
/** With the endings of its files no more than a file system takes. */
const LONGEST_NAME_BYTES = 200;
/** Names that the runs folder has for something else, and those that Windows has. */
const RESERVED = /^(?:data|con|prn|aux|nul|com\d|lpt\d)$/i;

/** The trainings of a studio. */
export class RunQueue {
  private readonly runs: string;
  private readonly saved: RunRecords;
  private readonly processes: RunProcesses;
  /** The one that trains now. */
  private current: { id: string; process: RunProcess; isDone: Promise<void> } | undefined;
  /** What is meant to become of those that are ending. */
  private readonly endings = new Map<string, Ending>();
  private isClosed = false;
  /** Changes are one after the other. */
  private turn: Promise<unknown> = Promise.resolve();

  constructor(private readonly options: RunQueueOptions) {
    this.runs = resolve(options.runs);
    this.saved = new RunRecords(this.runs);
    this.processes = new RunProcesses(this.runs, options.program);
  }

  /** Finds again what an earlier studio started, and goes on with the queue. */
  async open(): Promise<void> {
    await this.saved.load();
    for (const record of this.saved.all) {
      if (!isAtWork(record.state)) continue;
      const trainer = await readTrainer(join(this.runs, record.id));
      if (trainer?.pid !== undefined && !this.current) {
        this.watch(record, this.processes.adopt(trainer.pid));
      } else {
        await this.saved.keep(await this.afterwards(record, {}, "paused"));
      }
    }
    void this.startNext();
  }

  get records(): readonly RunRecord[] {
    return this.saved.all;
  }

  record(id: string): RunRecord | undefined {
    return this.saved.get(id);
  }

  /** What a run says that has made no step yet. */
  async activity(id: string): Promise<string | undefined> {
    return this.current?.id === id ? this.processes.lastLine(id) : undefined;
  }

  /** Puts a training at the end of the queue. @param name - Made up where it is empty. @returns Its id. */
  async add(name: string, config: TrainSettings): Promise<string> {
    return this.inTurn(async () => {
      const id = name.trim() === "" ? await this.newName(String(config.adapter ?? "fera")) : checkedName(name.trim());
      if (this.saved.get(id) || (await readdir(this.runs).catch(() => [] as string[])).includes(id)) {
        throw new StudioError(409, `There is already a run ${quoted(id)}. Choose another name.`);
      }
      try {
        await this.saved.set({ id, config, state: "queued", isStarted: false, changedAt: Date.now() });
      } catch (error) {
        // Who asked is told that it is not in the queue: so it must not be.
        this.saved.forget(id);
        throw error;
      }
      this.changed();
      return id;
    });
  }

  async act(id: string, action: RunAction): Promise<void> {
    const folder = await runFolder(this.runs, id);
    await this.inTurn(async () => {
      const record = this.saved.get(id);
      if (!record) {
        const files = await readRunFiles(folder);
        if (!files) throw new StudioError(404, `There is no run ${quoted(id)}.`);
        if (action === "resume") return this.adoptRun(id, files);
        throw new StudioError(409, `${quoted(id)} was started on the command line: the studio only looks at it.`);
      }
      switch (action) {
        case "pause":
          return this.end(record, "paused");
        case "stop":
          return this.end(record, "stopped");
        case "resume":
          return this.resume(record);
        case "remove":
          return this.remove(record);
        default:
          throw new StudioError(400, `A run can be paused, resumed, stopped and removed; got ${quoted(action)}.`);
      }
    });
  }

  /** Ends what trains, after its step and with a checkpoint: it is then paused. The queue stays for the next studio. */
  async close(): Promise<void> {
    this.isClosed = true;
    await this.turn.catch(() => undefined);
    const { current } = this;
    if (!current) return;
    const record = this.saved.get(current.id);
    if (record && record.state === "running") await this.end(record, "paused").catch(() => undefined);
    await current.isDone;
  }

  private async end(record: RunRecord, how: Ending): Promise<void> {
    if (record.state === "queued") {
      await this.saved.set({ ...record, state: how, changedAt: Date.now() });
      return this.changed();
    }
    if (how === "stopped" && record.state === "paused") {
      await this.saved.set({ ...record, state: "stopped", changedAt: Date.now() });
      return this.changed();
    }
    if (record.state === "stopping") {
      this.endings.set(record.id, how);
      return;
    }
    if (record.state !== "running" || this.current?.id !== record.id)
      throw tooLate(record, how === "paused" ? "pause" : "stop");
    this.endings.set(record.id, how);
    await this.saved.keep({ ...record, state: "stopping", changedAt: Date.now() });
    try {
      process.kill(this.current.process.pid, "SIGTERM");
    } catch {
      // It has just ended.
    }
    this.changed();
  }

  private async resume(record: RunRecord): Promise<void> {
    if (isAtWork(record.state) || record.state === "queued" || record.state === "finished")
      throw tooLate(record, "resume");
    const { error: _, ...rest } = record;
    // To the end of the queue.
    this.saved.forget(record.id);
    try {
      await this.saved.set({ ...rest, state: "queued", changedAt: Date.now() });
    } catch (error) {
      await this.saved.keep(record);
      throw error;
    }
    this.changed();
  }

  /** Goes on with a run of the command line, which is then the studio's. */
  private async adoptRun(id: string, files: RunFiles): Promise<void> {
    if (files.trainer) throw new StudioError(409, `${quoted(id)} is at work already, started on the command line.`);
    if (!files.hasCheckpoint) throw new StudioError(409, `${quoted(id)} has no checkpoint to go on from.`);
    // Its own run.json has its options.
    try {
      await this.saved.set({ id, config: {}, state: "queued", isStarted: true, changedAt: Date.now() });
    } catch (error) {
      this.saved.forget(id);
      throw error;
    }
    this.changed();
  }

  /** Out of the queue and the list; of what was trained, the training's own files. */
  private async remove(record: RunRecord): Promise<void> {
    if (isAtWork(record.state)) throw tooLate(record, "remove");
    const folder = join(this.runs, record.id);
    const files = await readRunFiles(folder);
    if (files?.trainer) throw new StudioError(409, `${quoted(record.id)} is at work. Stop it first.`);
    if (files) {
      // Of what run.json names only what lies in the folder itself.
      await this.options.clearRun(folder, join(folder, files.adapterFile ?? DEFAULT_ADAPTER));
    }
    // Only where nothing else lies there.
    await rmdir(folder).catch(() => undefined);
    await this.saved.delete(record.id);
    this.changed();
  }

  private changed(): void {
    this.options.onChange();
    void this.startNext();
  }

  private async startNext(): Promise<void> {
    await this.inTurn(async () => {
      const next = this.saved.all.find(({ state }) => state === "queued");
      if (this.current || this.isClosed || !next) return;
      await this.options.beforeStart();
      try {
        await makeFolder(join(this.runs, next.id));
        const process = await this.processes.start(next.id, next.config, next.isStarted);
        const record: RunRecord = { ...next, state: "running", isStarted: true, changedAt: Date.now() };
        this.watch(record, process);
        await this.saved.keep(record);
      } catch (error) {
        const reason = describeSystemError(error) ?? (error as Error).message;
        await this.saved.keep({ ...next, state: "failed", error: reason, changedAt: Date.now() });
        setImmediate(() => this.changed());
      }
      this.options.onChange();
    }).catch(() => undefined);
  }

  private watch(record: RunRecord, process: RunProcess): void {
    const isDone = process.ended.then(async (end) => {
      const how = this.endings.get(record.id);
      this.endings.delete(record.id);
      await this.saved.keep(await this.afterwards(this.saved.get(record.id) ?? record, end, how));
      this.current = undefined;
      this.changed();
    });
    this.current = { id: record.id, process, isDone: isDone.catch(() => undefined) };
  }

  /** A run whose process has gone. */
  private async afterwards(record: RunRecord, { code }: ProcessEnd, how: Ending | undefined): Promise<RunRecord> {
    const files = await readRunFiles(join(this.runs, record.id));
    const steps = files?.settings.steps;
    const isComplete =
      code === 0 || (code === undefined && files?.adapterFile !== undefined && files.last?.step === steps);
    const ended = { ...record, changedAt: Date.now() };
    if (isComplete) return { ...ended, state: "finished" };
    const isInterrupted = code === undefined || INTERRUPTED.has(code ?? 0) || code === null;
    if (how !== undefined && isInterrupted) return { ...ended, state: how };
    if (code !== undefined && code !== null && INTERRUPTED.has(code)) return { ...ended, state: "paused" };
    if (code === undefined) {
      // Nobody saw its end. What it has printed tells of a failure.
      const error = files?.hasCheckpoint ? undefined : await this.processes.error(record.id);
      return error === undefined ? { ...ended, state: "paused" } : { ...ended, state: "failed", error };
    }
    const error = (await this.processes.error(record.id)) ?? "It ended without a word.";
    return { ...ended, state: "failed", error: code === null ? `The training was killed. ${KILLED}` : error };
  }

  private async newName(kind: string): Promise<string> {
    const names = new Set([
      ...(await readdir(this.runs).catch(() => [] as string[])),
      ...this.records.map(({ id }) => id),
    ]);
    for (let number = 1; ; number++) if (!names.has(`${kind}-${number}`)) return `${kind}-${number}`;
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.turn.then(work, work);
    this.turn = result.catch(() => undefined);
    return result;
  }
}

const DEFAULT_ADAPTER = "adapter.safetensors";
/** 128 and the number of SIGHUP, SIGINT, SIGTERM. */
const INTERRUPTED: ReadonlySet<number> = new Set([129, 130, 143]);
const KILLED =
  "Perhaps the machine had no memory left: try a smaller batch, a smaller resolution or gradient checkpointing, then resume.";

function tooLate({ id, state }: RunRecord, action: RunAction): StudioError {
  return new StudioError(409, `${quoted(id)} is ${state} by now, so there is nothing to ${action}.`);
}

/** @throws {StudioError} If it cannot be the name of a folder on any system. */
function checkedName(name: string): string {
  const isPlain = /^[\p{L}\p{N}][\p{L}\p{N} ._+-]*$/u.test(name) && !/[. ]$/.test(name);
  const isShort = name.length <= LONGEST_NAME && new TextEncoder().encode(name).length <= LONGEST_NAME_BYTES;
  if (isPlain && isShort && !RESERVED.test(name)) return name;
  throw new StudioError(
    400,
    `A run's name must be letters, digits, spaces, ".", "_", "+" and "-", ${LONGEST_NAME} at most (and ` +
      `${LONGEST_NAME_BYTES} bytes), and begin with a letter or a digit; got ${quoted(name)}.`,
  );
}
