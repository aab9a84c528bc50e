// What all views share: the backend, what it said of itself, its runs, and notices.

import { signal } from "@preact/signals";
import type { RunSummary, StudioState } from "../../src/studio/protocol.js";
import { type Backend, LostServer } from "./backend.js";

/** A message: one that something failed stays until it is dismissed, another for a while. */
export interface Notice {
  id: number;
  isBad: boolean;
  text: string;
  /** Whether it goes when the server is back. */
  isOfLostServer?: boolean;
}

export const notices = signal<Notice[]>([]);
export const studio = signal<StudioState | undefined>(undefined);
export const runs = signal<RunSummary[]>([]);
export const isConnected = signal(true);
/** How many times the connection was lost and is back: what could not be had then can be now. */
export const reconnections = signal(0);

/** Long enough to read two sentences twice; what a message tells is to be seen in its view, too. */
const NOTICE_MS = 10_000;

let current: Backend | undefined;
let nextNotice = 0;

/** The backend, once {@link connect} has run. */
export function backend(): Backend {
  if (!current) throw new Error("The studio is not connected yet.");
  return current;
}

/** Begins to listen. @throws {Error} If nothing answers. */
export async function connect(chosen: Backend): Promise<void> {
  current = chosen;
  chosen.subscribe((event) => {
    if (event.kind === "connection") {
      const wasLost = !isConnected.value && event.isConnected;
      isConnected.value = event.isConnected;
      if (wasLost) comeBack();
    }
    if (event.kind === "runs") runs.value = event.runs;
    if (event.kind === "dataSets") void attempt(refresh);
  });
  await refresh();
}

function comeBack(): void {
  notices.value = notices.value.filter(({ isOfLostServer }) => !isOfLostServer);
  reconnections.value++;
  void attempt(refresh);
}

/** Asks again for what the views share. */
export async function refresh(): Promise<void> {
  studio.value = await backend().state();
  runs.value = await backend().runs();
}

/** Shows a message. */
export function tell(text: string, isBad = false, isOfLostServer = false): void {
  if (notices.value.some((notice) => notice.text === text)) return;
  const id = nextNotice++;
  notices.value = [...notices.value, { id, isBad, text, isOfLostServer }];
  if (!isBad) setTimeout(() => dismiss(id), NOTICE_MS);
}

export function dismiss(id: number): void {
  notices.value = notices.value.filter((notice) => notice.id !== id);
}

/** Runs something, and shows why it failed if it does. @returns Undefined where it failed. */
export async function attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof DOMException && error.name === "AbortError")) {
      tell((error as Error).message, true, error instanceof LostServer);
    }
    return undefined;
  }
}
