// What the studio remembers of the runs that it starts, so that queue and states survive its end. Node only.

import { join } from "node:path";
import { makeFolder, readJson, writeFileAtomically } from "../storage/file-access.js";
import { isObject } from "../storage/json.js";
import type { RunState, TrainSettings } from "./protocol.js";
import { isRunId } from "./run-id.js";
import { RUN_STATES } from "./run-states.js";

/** Folder of what the studio keeps, in the runs folder. */
export const STUDIO_FOLDER = ".studio";

/** A run of the studio. */
export interface RunRecord {
  id: string;
  state: RunState;
  /** What `--config` is given. */
  config: TrainSettings;
  /** Whether a training has been started in its folder before. */
  isStarted: boolean;
  /** Why it failed. */
  error?: string;
  /** Place in the queue, and the time of the last change. */
  changedAt: number;
}

/** The records of a runs folder, in the order of the queue. */
export class RunRecords {
  private readonly records = new Map<string, RunRecord>();
  private writing: Promise<void> = Promise.resolve();

  constructor(private readonly runs: string) {}

  async load(): Promise<void> {
    const known = await readJson(this.path).catch(() => undefined);
    const list: unknown[] = isObject(known) && Array.isArray(known.runs) ? known.runs : [];
    for (const record of list) if (isRecord(record)) this.records.set(record.id, record);
  }

  get all(): readonly RunRecord[] {
    return [...this.records.values()];
  }

  get(id: string): RunRecord | undefined {
    return this.records.get(id);
  }

  /** Adds a record at the end of the queue, or changes one. Writes are one after the other. */
  async set(record: RunRecord): Promise<void> {
    this.records.set(record.id, record);
    await this.save();
  }

  /** As {@link set}, for what has happened already: where the disk takes nothing, it is remembered until it does. */
  async keep(record: RunRecord): Promise<void> {
    await this.set(record).catch(() => undefined);
  }

  /** Takes a record out of memory, not off the disk: one that could not be saved, or that is set anew as the last. */
  forget(id: string): void {
    this.records.delete(id);
  }

  async delete(id: string): Promise<void> {
    this.records.delete(id);
    await this.save();
  }

  private save(): Promise<void> {
    const write = async () => {
      await makeFolder(join(this.runs, STUDIO_FOLDER));
      const text = JSON.stringify({ runs: this.all }, undefined, 1);
      await writeFileAtomically(this.path, [new TextEncoder().encode(`${text}\n`)]);
    };
    this.writing = this.writing.then(write, write);
    return this.writing;
  }

  private get path(): string {
    return join(this.runs, STUDIO_FOLDER, "runs.json");
  }
}

/** Whether a value of the file is one of ours: it may come from elsewhere with its runs folder. */
function isRecord(value: unknown): value is RunRecord {
  if (!isObject(value)) return false;
  const { id, state, config, isStarted, error, changedAt } = value;
  return (
    typeof id === "string" &&
    isRunId(id) &&
    RUN_STATES.includes(state as RunState) &&
    isObject(config) &&
    typeof isStarted === "boolean" &&
    typeof changedAt === "number" &&
    (error === undefined || typeof error === "string")
  );
}
