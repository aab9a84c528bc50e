// The backend in the page itself: files lie in the browser's own storage (OPFS), a worker trains and draws. What only reads
// files is done here, so that the views answer while the worker computes.

import type { AdapterChoice, RunDetails, RunSummary, StudioEvent, StudioState } from "../../../src/studio/protocol.js";
import type { Backend } from "../backend.js";
import { DataSets } from "./data-sets.js";
import { findFile, findFolder, storageRoot } from "./files.js";
import { isolate } from "./isolation.js";
import { describeDevice, type Machine, measureMachine } from "./machine.js";
import { type Broadcast, CHANNEL } from "./messages.js";
import { readDetails, readMetricsFrom, readRuns, runsFolder } from "./runs.js";
import { WorkerClient } from "./worker-client.js";

/** Addresses of drawn pictures and run files that are kept; the oldest are given up. */
const KEPT_URLS = 500;
/** Milliseconds that the list of runs is told anew at most. */
const RUNS_EVERY = 300;

export class TabBackend implements Backend {
  private readonly listeners = new Set<(event: StudioEvent) => void>();
  private readonly channel = new BroadcastChannel(CHANNEL);
  private readonly worker: WorkerClient;
  private readonly dataSets: DataSets;
  private readonly urls = new Map<string, string>();
  /** Runs of this tab that wait or go on; they are newer than their files. */
  private live: readonly RunSummary[] = [];
  private tellingRuns: ReturnType<typeof setTimeout> | undefined;

  private constructor(
    private readonly root: FileSystemDirectoryHandle,
    private readonly machine: Machine,
  ) {
    this.dataSets = new DataSets(root);
    this.worker = new WorkerClient({
      onEvent: (event) => this.tell(event),
      onLive: (live) => {
        this.live = live;
        this.tellRuns();
      },
    });
    this.channel.onmessage = ({ data }: MessageEvent<Broadcast>) => {
      if (data.kind === "runsChanged") this.tellRuns();
      else this.tell(data);
    };
  }

  /** @throws {Error} Where the browser lacks what a tab needs; the message says what. */
  static async open(): Promise<Backend> {
    await isolate();
    const root = await storageRoot();
    // So that the browser does not clear it when the disk gets full; it may refuse.
    await navigator.storage.persist?.().catch(() => false);
    const machine = await measureMachine();
    const backend = new TabBackend(root, machine);
    const { threads, device, isSlow } = machine;
    const version = __FERA_VERSION__;
    await backend.worker.call("open", { base: document.baseURI, threads, device, isSlow, version });
    return backend;
  }

  async state(): Promise<StudioState> {
    const { cores, memoryBytes, notes } = this.machine;
    return {
      version: __FERA_VERSION__,
      kind: "tab",
      machine: { cores, ...(memoryBytes !== undefined && { memoryBytes }) },
      device: describeDevice(this.machine),
      models: [{ id: "embedded", label: "embedded icon model", defaultSize: 128 }],
      dataSets: await this.dataSets.list(),
      runsFolder: "this browser's storage",
      notes,
    };
  }

  subscribe(listener: (event: StudioEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  dataSet: Backend["dataSet"] = (id, query) => this.dataSets.view(id, query);
  createDataSet: Backend["createDataSet"] = (label) => this.changing(this.dataSets.create(label));
  addFiles: Backend["addFiles"] = (id, files) => this.changing(this.dataSets.add(id, files));
  removeImage: Backend["removeImage"] = (id, image) => this.changing(this.dataSets.removeImage(id, image));
  setCaption: Backend["setCaption"] = (id, image, caption) => this.dataSets.setCaption(id, image, caption);
  imageUrl: Backend["imageUrl"] = (id, image, side) => this.dataSets.imageUrl(id, image, side);

  options: Backend["options"] = () => this.worker.call("options");
  check: Backend["check"] = (settings) => this.worker.call("check", settings);
  predict: Backend["predict"] = (settings, signal) => this.worker.abortable(signal, "predict", settings);
  start: Backend["start"] = (name, settings) => this.worker.call("start", name, settings);

  async runs(): Promise<RunSummary[]> {
    const ours = new Set(this.live.map(({ id }) => id));
    const others = (await readRuns(this.root)).filter(({ id }) => !ours.has(id));
    return [...this.live, ...others];
  }

  async run(id: string): Promise<RunDetails> {
    const summary = (await this.runs()).find((run) => run.id === id);
    if (!summary) throw new Error(`There is no run "${id}" any more.`);
    return readDetails(this.root, summary);
  }

  metrics: Backend["metrics"] = (id, from) => readMetricsFrom(this.root, id, from);
  act: Backend["act"] = (run, action) => this.worker.call("act", run, action);

  async runFileUrl(run: string, path: string): Promise<string> {
    const folder = await findFolder(await runsFolder(this.root), run);
    const file = folder && (await findFile(folder, path));
    if (!file) throw new Error(`${run} has no file ${path} any more.`);
    const key = `${run}/${path} ${file.lastModified} ${file.size}`;
    const known = this.urls.get(key);
    // A copy: the file itself is void once it is written anew.
    return known ?? this.urlOf(key, new Blob([await file.arrayBuffer()], { type: file.type }));
  }

  async adapters(): Promise<AdapterChoice[]> {
    const runs = await this.runs();
    const choices = await Promise.all(
      runs.map(async ({ id, model }) => {
        const folder = await findFolder(await runsFolder(this.root), id);
        const hasAdapter = folder && (await findFile(folder, "adapter.safetensors"));
        return hasAdapter ? { id, label: id, run: id, model } : undefined;
      }),
    );
    return choices.filter((choice) => choice !== undefined);
  }

  samplers: Backend["samplers"] = () => this.worker.call("samplers");
  draw: Backend["draw"] = (request) => this.worker.call("draw", request);
  cancelDrawing: Backend["cancelDrawing"] = (job) => this.worker.call("cancelDrawing", job);
  drawnImageUrl: Backend["drawnImageUrl"] = async (id) =>
    this.urls.get(`drawn ${id}`) ?? this.urlOf(`drawn ${id}`, await this.worker.call("drawing", id));

  private urlOf(key: string, content: Blob): string {
    const known = this.urls.get(key);
    if (known !== undefined) return known;
    const url = URL.createObjectURL(content);
    this.urls.set(key, url);
    const [oldest] = this.urls;
    if (this.urls.size > KEPT_URLS && oldest) {
      this.urls.delete(oldest[0]);
      URL.revokeObjectURL(oldest[1]);
    }
    return url;
  }

  /** Data sets are other ones now, in every tab. */
  private async changing<T>(work: Promise<T>): Promise<T> {
    const result = await work;
    const event: Broadcast = { kind: "dataSets" };
    this.channel.postMessage(event);
    this.tell(event);
    return result;
  }

  private tell(event: StudioEvent): void {
    for (const listener of this.listeners) listener(event);
  }

  private tellRuns(): void {
    this.tellingRuns ??= setTimeout(async () => {
      this.tellingRuns = undefined;
      const runs = await this.runs().catch(() => undefined);
      if (runs) this.tell({ kind: "runs", runs });
    }, RUNS_EVERY);
  }
}
