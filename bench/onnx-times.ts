// Collects what onnx-timer.js measures in the worker thread: seconds inside ONNX Runtime.

import { setTimeout as sleep } from "node:timers/promises";
import { BroadcastChannel } from "node:worker_threads";

interface TimedWork {
  kind: "create" | "run";
  seconds: number;
}

const LATEST_MS = 2000;

/** Seconds inside ONNX Runtime, in the order in which the work ended. */
export class OnnxTimes {
  readonly create: number[] = [];
  readonly run: number[] = [];
  private readonly channel = new BroadcastChannel("onnx-timer");

  constructor() {
    this.channel.unref();
    this.channel.onmessage = (event: unknown) => {
      const { kind, seconds } = (event as { data: TimedWork }).data;
      this[kind].push(seconds);
    };
  }

  /**
   * Waits until so many runs have been reported, and ends the collection.
   *
   * @throws {Error} If they do not come: the timer was not preloaded.
   */
  async finish(runs: number): Promise<void> {
    for (let waited = 0; this.run.length < runs; waited += 5) {
      if (waited > LATEST_MS) throw new Error(`onnx-timer: expected ${runs} runs; got ${this.run.length}.`);
      await sleep(5);
    }
    this.channel.close();
  }
}
