// Which states of a training are kept: the newest few, and the one with the lowest validation loss. Node only.

import { ConfigError } from "../errors.js";
import { type Checkpoint, pruneCheckpoints, saveCheckpoint } from "./checkpoint.js";

/** The step with the lowest validation loss so far. */
export interface BestStep {
  step: number;
  loss: number;
}

/** Settings of a {@link CheckpointPolicy}. */
export interface CheckpointPolicyOptions {
  folder: string;
  /** Steps between checkpoints; 0 for one at the end only. */
  every: number;
  /** How many of the newest are kept; 0 for all. Default 2: where the newest is damaged, the one before is taken. */
  keep?: number;
}

export const CHECKPOINTS_KEPT = 2;

/** Writes checkpoints where they are due, and deletes those that are no longer kept. */
export class CheckpointPolicy {
  /** Where a validation loss has been measured. */
  best: BestStep | undefined;
  /** The path of the newest that was written or restored. */
  newest: string | undefined;
  private isBestUnsaved = false;

  constructor(private readonly options: CheckpointPolicyOptions) {
    const { every, keep = CHECKPOINTS_KEPT } = options;
    for (const [name, value] of Object.entries({ checkpointEvery: every, keepCheckpoints: keep })) {
      if (Number.isSafeInteger(value) && value >= 0) continue;
      throw new ConfigError(`Trainer: ${name} must be an integer of 0 or more; got ${value}.`);
    }
  }

  /** Takes in the validation loss that was measured after a step. One that is not finite is never the best. */
  observe(step: number, loss: number): void {
    if (!Number.isFinite(loss) || (this.best && this.best.loss <= loss)) return;
    this.best = { step, loss };
    this.isBestUnsaved = true;
  }

  /** Whether the state after this step is to be written: by number, or because it is the best. */
  isDue(step: number): boolean {
    const { every } = this.options;
    return this.isBestUnsaved || (every > 0 && step > 0 && step % every === 0);
  }

  /** Puts back what a checkpoint tells. */
  restore(path: string, best: BestStep | undefined): void {
    this.newest = path;
    this.best = best;
    this.isBestUnsaved = false;
  }

  /** Writes one, whole or not at all, and only then deletes older ones. @returns Its path. */
  async save(checkpoint: Checkpoint): Promise<string> {
    const { folder, keep = CHECKPOINTS_KEPT } = this.options;
    this.newest = await saveCheckpoint(folder, { ...checkpoint, ...(this.best && { best: this.best }) });
    this.isBestUnsaved = false;
    if (keep > 0) await pruneCheckpoints(folder, keep, this.best?.step);
    return this.newest;
  }
}
