// The backend over HTTP: `fera studio`. Every call is one request below api/; events come as server-sent events.

import { jsonIn } from "../../../src/storage/json.js";
import type { AddedFiles, StudioEvent } from "../../../src/studio/protocol.js";
import { type Backend, LostServer } from "../backend.js";
import { SharedEvents } from "./shared-events.js";

/** Requests that change something carry it: a form of another site cannot. */
const HEADERS = { "X-Fera-Studio": "1" };

export class ServerBackend implements Backend {
  state: Backend["state"] = () => get("state");

  private readonly listeners = new Set<(event: StudioEvent) => void>();
  private events: SharedEvents | undefined;

  subscribe(listener: (event: StudioEvent) => void): () => void {
    this.listeners.add(listener);
    this.events ??= new SharedEvents((event) => {
      for (const each of this.listeners) each(event);
    });
    whenLost = () => this.events?.lost();
    return () => this.listeners.delete(listener);
  }

  dataSet: Backend["dataSet"] = (id, { resolution, bucket = false }) =>
    get("dataset", { id, resolution: String(resolution), bucket: String(bucket) });
  createDataSet: Backend["createDataSet"] = (label) => post("datasets", { label });
  addFiles: Backend["addFiles"] = async (dataSet, files) => {
    const result: AddedFiles = { added: [], refused: [] };
    // One by one: none is held back by another's refusal, and none waits in memory.
    for (const file of files) {
      const query = new URLSearchParams({ id: dataSet, name: file.name });
      const part = await request<AddedFiles>(`dataset/files?${query}`, { method: "POST", body: file });
      result.added.push(...part.added);
      result.refused.push(...part.refused);
    }
    return result;
  };
  removeImage: Backend["removeImage"] = (id, image) => post("dataset/remove", { id, image });
  setCaption: Backend["setCaption"] = (id, image, caption) => post("dataset/caption", { id, image, caption });
  imageUrl: Backend["imageUrl"] = async (id, image, side) =>
    address("dataset/image", { id, image, side: String(side) });

  options: Backend["options"] = () => get("options");
  check: Backend["check"] = (settings) => post("check", { settings });
  predict: Backend["predict"] = (settings, signal) => post("predict", { settings }, signal);
  start: Backend["start"] = (name, settings) => post("runs", { name, settings });

  runs: Backend["runs"] = () => get("runs");
  run: Backend["run"] = (id) => get("run", { id });
  metrics: Backend["metrics"] = (id, from) => get("run/metrics", { id, from: String(from) });
  act: Backend["act"] = (id, action) => post("run/action", { id, action });
  runFileUrl: Backend["runFileUrl"] = async (id, file) => address("run/file", { id, file });

  adapters: Backend["adapters"] = () => get("adapters");
  samplers: Backend["samplers"] = () => get("samplers");
  draw: Backend["draw"] = async (drawing) => (await post<{ job: string }>("drawings", drawing)).job;
  cancelDrawing: Backend["cancelDrawing"] = (job) => post("drawings/cancel", { job });
  drawnImageUrl: Backend["drawnImageUrl"] = async (id) => address("drawing", { id });
}

const address = (path: string, query: Record<string, string>): string => `api/${path}?${new URLSearchParams(query)}`;

const get = <T>(path: string, query: Record<string, string> = {}): Promise<T> =>
  request<T>(Object.keys(query).length === 0 ? path : `${path}?${new URLSearchParams(query)}`, {});

const post = <T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> =>
  request<T>(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
    ...(signal && { signal }),
  });

/** Called where a request finds no server. */
let whenLost = () => {};

/** @throws {Error} With the server's own words, or that it does not answer. */
async function request<T>(path: string, options: RequestInit): Promise<T> {
  let answer: Response;
  let text: string;
  try {
    answer = await fetch(`api/${path}`, { ...options, headers: { ...HEADERS, ...options.headers } });
    text = await answer.text();
  } catch (cause) {
    if ((cause as Error).name === "AbortError") throw cause;
    throw await reasonOf(cause);
  }
  const content: unknown = jsonIn(text);
  if (answer.ok) return content as T;
  const message = (content as { error?: string } | undefined)?.error;
  throw new Error(message ?? `The server answered ${answer.status} to ${path.split("?")[0]}.`);
}

/** A browser does not say why a request came to nothing. */
async function reasonOf(cause: unknown): Promise<Error> {
  const isThere = await fetch("api/samplers").then(
    () => true,
    () => false,
  );
  if (isThere) {
    const text = "The request broke off. Try again; a file that has changed since it was chosen is to be chosen anew.";
    return new Error(text, { cause });
  }
  whenLost();
  return new LostServer("The server does not answer. Look at the terminal where fera studio runs.", { cause });
}
