// The page's worker: holds the library, trains and draws. ONNX Runtime blocks the thread that it computes on.

import { SAMPLER_NAMES } from "../../../../src/pipelines/generation-settings/sampler-names.js";
import type { StudioEvent } from "../../../../src/studio/protocol.js";
import { storageRoot } from "../files.js";
import { type Answer, type Broadcast, CHANNEL, type Request, type WorkerCalls } from "../messages.js";
import { Drawings } from "./drawings.js";
// First: it sees every memory of WebAssembly that is made.
import { wasmMemoryBytes } from "./memory.js";
import { openPlace } from "./place.js";
import { RunQueue } from "./run-queue.js";
import { checkTabSettings, describeTabOptions } from "./tab-options.js";

void wasmMemoryBytes;

const post = (answer: Answer): void => self.postMessage(answer);
const tell = (event: StudioEvent): void => post({ event });
const channel = new BroadcastChannel(CHANNEL);

const opened = storageRoot().then((root) => ({
  queue: new RunQueue(root, {
    onLive: (live) => post({ live }),
    tell: (event: Broadcast) => channel.postMessage(event),
  }),
  drawings: new Drawings(root, tell),
}));
opened.catch(() => undefined);

type Handlers = {
  [Name in keyof WorkerCalls]: (
    signal: AbortSignal,
    ...values: Parameters<WorkerCalls[Name]>
  ) => ReturnType<WorkerCalls[Name]> | Promise<ReturnType<WorkerCalls[Name]>>;
};

const handlers: Handlers = {
  open: (_, place) => openPlace(place),
  options: () => describeTabOptions(),
  check(_, settings) {
    const { problems, command, settings: complete } = checkTabSettings(settings);
    return { problems, command, settings: complete };
  },
  predict: async (signal, settings) =>
    (await opened).queue.predict(settings, signal, (done, total) => tell({ kind: "predicting", done, total })),
  start: async (_, name, settings) => (await opened).queue.start(name, settings),
  act: async (_, run, action) => (await opened).queue.act(run, action),
  samplers: () => [...SAMPLER_NAMES],
  draw: async (_, request) => (await opened).drawings.start(request),
  cancelDrawing: async (_, job) => (await opened).drawings.cancel(job),
  drawing: async (_, id) => (await opened).drawings.picture(id),
};

const aborting = new Map<number, AbortController>();

self.onmessage = async ({ data }: MessageEvent<Request>) => {
  if ("abort" in data) return aborting.get(data.abort)?.abort();
  const { id, name, arguments: values } = data;
  const controller = new AbortController();
  aborting.set(id, controller);
  try {
    const handle = handlers[name] as (signal: AbortSignal, ...values: readonly unknown[]) => unknown;
    post({ id, value: await handle(controller.signal, ...values) });
  } catch (error) {
    post({ id, error: (error as Error).message, ...(controller.signal.aborted && { isAbort: true }) });
  } finally {
    aborting.delete(id);
  }
};
