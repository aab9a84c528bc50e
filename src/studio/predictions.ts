// What a training will take: from an earlier run with the same options where there is one, else from a few steps that are
// run now. Node only.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { metricsPart } from "./metrics-part.js";
import type { MetricsLine, Prediction, StudioEvent, TrainSettings } from "./protocol.js";
import { RunProcesses } from "./run-process.js";
import { StudioError } from "./studio-error.js";

/** Steps that are run, of which the first one also warms up. */
const STEPS = 4;
const POLL_MS = 100;

/** What makes a step longer or shorter, or needs more memory. */
const TELLING = [
  ...[
    "model",
    "modelConfig",
    "variant",
    "device",
    "threads",
    "resolution",
    "bucket",
    "batchSize",
    "gradientAccumulation",
    "dtype",
  ],
  ...["adapter", "rank", "numExperts", "numBands", "router", "targetModules", "targetPattern", "excludeModules"],
  ...["optimizer", "gradientCheckpointing", "trainTextEncoder", "trainTokens", "feclWeight", "ema", "cacheLatents"],
];

/** A run that was measured. */
export interface MeasuredRun {
  id: string;
  settings: TrainSettings;
  /** Its first steps. */
  metrics: string;
}

/** Settings of {@link Predictions}. */
export interface PredictionsOptions {
  /** The program `fera`. */
  program: string;
  /** Earlier runs, the newest first. */
  runs(): Promise<readonly MeasuredRun[]>;
  isTraining(): Promise<boolean>;
  emit(event: StudioEvent): void;
}

/** Predicts. */
export class Predictions {
  /** A measurement at a time: two would make each other slow. */
  private isBusy = false;
  private readonly closing = new AbortController();

  constructor(private readonly options: PredictionsOptions) {}

  /**
   * @param config - What `--config` is given.
   * @param settings - What run.json will hold.
   * @param signal - Ends the steps that are run.
   */
  async predict(config: TrainSettings, settings: TrainSettings, signal: AbortSignal): Promise<Prediction> {
    const steps = Number(settings.steps);
    const earlier = await this.fromEarlier(settings, steps);
    if (earlier) return earlier;
    if (this.isBusy)
      throw new StudioError(409, "Another prediction is running its steps. Wait for it, then ask again.");
    this.isBusy = true;
    try {
      if (await this.options.isTraining()) {
        throw new StudioError(
          409,
          "A training is at work, beside which no steps can be measured. Ask again when it has ended.",
        );
      }
      return await this.measure(config, steps, AbortSignal.any([signal, this.closing.signal]));
    } finally {
      this.isBusy = false;
    }
  }

  /** Ends what is being measured. */
  close(): void {
    this.closing.abort();
  }

  private async fromEarlier(settings: TrainSettings, steps: number): Promise<Prediction | undefined> {
    const wanted = tellingOf(settings);
    for (const run of await this.options.runs()) {
      if (tellingOf(run.settings) !== wanted) continue;
      const { lines } = await metricsPart(run.metrics, 0);
      const measured = measuredIn(lines);
      if (!measured) continue;
      return {
        ...measured,
        seconds: measured.secondsPerStep * steps,
        basis: `the run ${run.id}, which had the same options`,
      };
    }
    return undefined;
  }

  /** Runs a few steps of the very command in a temporary folder. */
  private async measure(config: TrainSettings, steps: number, signal: AbortSignal): Promise<Prediction> {
    const { program, emit } = this.options;
    const count = Math.min(STEPS, Math.max(2, steps));
    const folder = await mkdtemp(join(tmpdir(), "fera-prediction-"));
    try {
      const processes = new RunProcesses(folder, program);
      const begin = performance.now();
      // Nothing that comes between steps.
      const { validationPrompts: _p, validateEvery: _e, validationData: _d, validationLossEvery: _l, ...rest } = config;
      const id = "prediction";
      const { pid, ended } = await processes.start(
        id,
        { ...rest, steps: count, checkpointEvery: 0, log: "none" },
        false,
      );
      let end: { code?: number | null } | undefined;
      void ended.then((result) => {
        end = result;
      });
      const metrics = join(folder, id, "metrics.jsonl");
      let setupSeconds: number | undefined;
      let told = -1;
      while (!end) {
        if (signal.aborted) kill(pid);
        const done = (await metricsPart(metrics, 0)).lines.filter(({ loss }) => loss !== undefined).length;
        if (done > 0) setupSeconds ??= (performance.now() - begin) / 1000;
        if (done !== told) emit({ kind: "predicting", done, total: count });
        told = done;
        await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, POLL_MS))]);
      }
      signal.throwIfAborted();
      if (end.code !== 0) {
        throw new StudioError(400, (await processes.error(id)) ?? "The steps to be measured failed without a word.");
      }
      const measured = measuredIn((await metricsPart(metrics, 0)).lines);
      if (!measured) throw new StudioError(500, "The steps that were run told nothing.");
      return {
        ...measured,
        seconds: (setupSeconds ?? 0) + measured.secondsPerStep * steps,
        basis: `${count} steps that were run just now, with loading and encoding, without pictures`,
      };
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has just ended.
  }
}

/** Median seconds of the steps behind the first, and the most memory; undefined where there are too few. */
export function measuredIn(
  lines: readonly MetricsLine[],
): Pick<Prediction, "secondsPerStep" | "peakMemoryBytes"> | undefined {
  const steps = lines.filter(({ loss }) => loss !== undefined);
  const times = steps.slice(1).flatMap(({ seconds, step }, index) => {
    const before = steps[index]!;
    // A resumed run counts from 0 again.
    const took = (seconds ?? 0) - (before.seconds ?? 0);
    return step === before.step + 1 && took > 0 ? [took] : [];
  });
  if (times.length === 0) return undefined;
  const middle = times.sort((a, b) => a - b)[Math.floor(times.length / 2)]!;
  const peaks = steps.flatMap(({ peakMemoryBytes }) => (peakMemoryBytes === undefined ? [] : [peakMemoryBytes]));
  return { secondsPerStep: middle, ...(peaks.length > 0 && { peakMemoryBytes: Math.max(...peaks) }) };
}

function tellingOf(settings: TrainSettings): string {
  return JSON.stringify(TELLING.map((name) => settings[name] ?? null));
}
