// Collects what onnx-timer.js measures in the worker threads: seconds inside ONNX Runtime.

import { setTimeout as sleep } from "node:timers/promises";
import { BroadcastChannel } from "node:worker_threads";

/** In seconds of one clock. */
interface Interval {
  startedAt: number;
  endedAt: number;
}

const LATEST_MS = 2000;
const POLL_MS = 5;

/** Seconds inside ONNX Runtime, in order. What ran at the same time in several threads counts as one, and once. */
export class OnnxTimes {
  private readonly intervals = { create: [] as Interval[], run: [] as Interval[] };
  private readonly channel = new BroadcastChannel("onnx-timer");

  constructor() {
    this.channel.unref();
    this.channel.onmessage = (event: unknown) => {
      const { kind, ...interval } = (event as { data: Interval & { kind: "create" | "run" } }).data;
      this.intervals[kind].push(interval);
    };
  }

  get create(): number[] {
    return durations(this.intervals.create);
  }

  get run(): number[] {
    return durations(this.intervals.run);
  }

  /**
   * Waits until that many runs have been reported, and ends the collection.
   *
   * @throws {Error} If they do not come: the timer was not preloaded.
   */
  async finish(runs: number): Promise<void> {
    for (let waited = 0; this.run.length < runs; waited += POLL_MS) {
      if (waited > LATEST_MS) throw new Error(`onnx-timer: expected ${runs} runs; got ${this.run.length}.`);
      await sleep(POLL_MS);
    }
    // Of the last run, another thread's report may still be on its way.
    await sleep(POLL_MS);
    this.channel.close();
  }
}

/** Lengths of the intervals' union, piece by piece. */
function durations(intervals: readonly Interval[]): number[] {
  const pieces: Interval[] = [];
  for (const { startedAt, endedAt } of [...intervals].sort((a, b) => a.startedAt - b.startedAt)) {
    const last = pieces.at(-1);
    if (last && startedAt < last.endedAt) last.endedAt = Math.max(last.endedAt, endedAt);
    else pieces.push({ startedAt, endedAt });
  }
  return pieces.map(({ startedAt, endedAt }) => endedAt - startedAt);
}
