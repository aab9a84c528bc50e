// The page's side of its worker: calls with answers, and what the worker tells by itself.

import type { RunSummary, StudioEvent } from "../../../src/studio/protocol.js";
import type { Answer, Request, WorkerCalls } from "./messages.js";

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** Calls the worker, which is started with it. */
export class WorkerClient {
  private readonly worker = new Worker(new URL("./worker/worker.ts", import.meta.url), { type: "module" });
  private readonly waiting = new Map<number, Waiting>();
  private nextId = 1;
  private failure: Error | undefined;

  constructor(told: { onEvent(event: StudioEvent): void; onLive(live: readonly RunSummary[]): void }) {
    this.worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      if ("event" in data) told.onEvent(data.event);
      else if ("live" in data) told.onLive(data.live);
      else this.settle(data);
    };
    this.worker.onerror = (event) => {
      event.preventDefault();
      const what = event.message || "its program could not be loaded";
      this.failure = new Error(`The page's worker has failed: ${what}. Load the page again; what was saved is there.`);
      for (const { reject } of this.waiting.values()) reject(this.failure);
      this.waiting.clear();
    };
  }

  /** @throws {Error} With the worker's own words. */
  call<Name extends keyof WorkerCalls>(
    name: Name,
    ...values: Parameters<WorkerCalls[Name]>
  ): Promise<ReturnType<WorkerCalls[Name]>> {
    return this.send(name, values).answer;
  }

  /** A call that the signal ends. @throws {DOMException} Named AbortError where it did. */
  abortable<Name extends keyof WorkerCalls>(
    signal: AbortSignal,
    name: Name,
    ...values: Parameters<WorkerCalls[Name]>
  ): Promise<ReturnType<WorkerCalls[Name]>> {
    signal.throwIfAborted();
    const { id, answer } = this.send(name, values);
    const abort = () => this.worker.postMessage({ abort: id } satisfies Request);
    signal.addEventListener("abort", abort);
    return answer.finally(() => signal.removeEventListener("abort", abort));
  }

  private send<Name extends keyof WorkerCalls>(name: Name, values: readonly unknown[]) {
    const id = this.nextId++;
    const answer = new Promise<ReturnType<WorkerCalls[Name]>>((resolve, reject) => {
      if (this.failure) return reject(this.failure);
      this.waiting.set(id, { resolve: resolve as Waiting["resolve"], reject });
      this.worker.postMessage({ id, name, arguments: values } satisfies Request);
    });
    return { id, answer };
  }

  private settle(answer: Extract<Answer, { id: number }>): void {
    const waiting = this.waiting.get(answer.id);
    this.waiting.delete(answer.id);
    if (!("error" in answer)) waiting?.resolve(answer.value);
    else if (answer.isAbort) waiting?.reject(new DOMException(answer.error, "AbortError"));
    else waiting?.reject(new Error(answer.error));
  }
}
