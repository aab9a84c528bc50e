// The states of a training: what of it is kept in a checkpoint, written one after the other, and put back. Node only.

import { join } from "node:path";
import { type DType, Tensor } from "../tensor/tensor.js";
import { type Checkpoint, checkpointPath, restoreInto } from "./checkpoint.js";
import { CheckpointPolicy } from "./checkpoint-policy.js";
import type { DiffusionBatches } from "./diffusion-batches.js";
import type { Engine } from "./engine.js";
import { LossScale } from "./loss-scale.js";
import type { TrainerOptions } from "./trainer-options.js";

/** Where the stream of batches stands. */
export interface StreamPlace {
  state: ReturnType<DiffusionBatches["state"]>;
  drawn: number;
}

/** How far a training is. */
export interface TrainingPlace extends StreamPlace {
  step: number;
  /** Numbers of the batches that are left out. */
  skipped: Iterable<number>;
}

/** Reads and changes what a trainer trains; holds nothing of it. */
export class TrainingStates {
  readonly folder: string;
  /** Which are kept, and the newest. */
  readonly policy: CheckpointPolicy;
  private writing: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly options: TrainerOptions,
    private readonly engine: Engine,
  ) {
    const { output, checkpointEvery = 0, keepCheckpoints } = options;
    this.folder = join(output, "checkpoints");
    const keep = keepCheckpoints === undefined ? {} : { keep: keepCheckpoints };
    this.policy = new CheckpointPolicy({ folder: this.folder, every: checkpointEvery, ...keep });
  }

  /** The path that a step's state has or would have. */
  pathOf(step: number): string {
    return checkpointPath(this.folder, step);
  }

  /** Writes the state at a place. @returns Its path. */
  save(place: TrainingPlace): Promise<string> {
    return this.write(this.at(place));
  }

  /** As {@link save}, of the state as it is now, whatever is changed while it is written. */
  saveCopy(place: TrainingPlace): Promise<string> {
    const { parameters, optimizer, average, ...state } = this.at(place);
    return this.write({
      ...state,
      parameters: copied(parameters),
      optimizer: copied(optimizer),
      average: average && copied(average),
    });
  }

  /** Puts a checkpoint's state back into what is trained. */
  restore(path: string, saved: Checkpoint): void {
    const { trainable, optimizer, average, batches } = this.options;
    restoreInto(trainable.parameters, saved.parameters, path);
    if (average) {
      restoreInto(average.values, saved.average ?? new Map(), path);
      average.updates = saved.step;
    }
    optimizer.loadStateDict(new Map(saved.optimizer));
    const { lossScale } = trainable;
    if (lossScale instanceof LossScale && saved.lossScale) lossScale.restore(saved.lossScale);
    batches.restore(saved.stream as ReturnType<DiffusionBatches["state"]>);
    this.policy.restore(path, saved.best);
  }

  /** One after the other. */
  private async write(checkpoint: Checkpoint): Promise<string> {
    const { onCheckpoint } = this.options;
    const writing = this.writing.then(() => {
      onCheckpoint?.("writing");
      return this.policy.save(checkpoint);
    });
    this.writing = writing.catch(() => undefined);
    const path = await writing;
    onCheckpoint?.("written");
    return path;
  }

  private at({ step, state, drawn, skipped }: TrainingPlace): Checkpoint {
    const { trainable, optimizer, average, fingerprint = "" } = this.options;
    return {
      step,
      parameters: trainable.parameters,
      optimizer: optimizer.stateDict(),
      lossScale: trainable.lossScale instanceof LossScale ? trainable.lossScale.state() : undefined,
      average: average?.values,
      stream: state,
      fingerprint,
      engine: this.engine,
      drawn,
      skipped: [...skipped],
    };
  }
}

const copied = <D extends DType>(tensors: ReadonlyMap<string, Tensor<D>>): Map<string, Tensor<D>> =>
  new Map(
    [...tensors].map(([name, { dtype, shape, data }]) => [name, new Tensor(dtype, shape, data.slice() as never)]),
  );
