// Tells every open page what happens.

import type { StudioEvent } from "./protocol.js";

/** Those who listen. */
export class EventHub {
  private readonly listeners = new Set<(event: StudioEvent) => void>();

  get hasListeners(): boolean {
    return this.listeners.size > 0;
  }

  emit(event: StudioEvent): void {
    for (const listener of this.listeners) listener(event);
  }

  /** @returns Ends it. */
  subscribe(listener: (event: StudioEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

/** Calls `work` at once, and where it is asked for again within a pause, once more after that: for what comes in swarms. */
export function calmly(work: () => void, pauseMs: number): () => void {
  let timer: NodeJS.Timeout | undefined;
  let isWanted = false;
  const run = () => {
    isWanted = false;
    work();
    timer = setTimeout(() => {
      timer = undefined;
      if (isWanted) run();
    }, pauseMs);
    timer.unref();
  };
  return () => {
    if (timer) isWanted = true;
    else run();
  };
}

/** Between signs of life, without which a proxy or a browser would give the connection up. */
const BEAT_MS = 15_000;

/** Most events that wait for a page to take them. */
const MOST_WAITING = 1000;

/** Server-sent events for one page. */
export function eventStream(hub: EventHub, signal: AbortSignal): Response {
  const encoder = new TextEncoder();
  let end = () => {};
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      const send = (text: string) => {
        // One that does not listen any more, though its connection is open, is not kept events for: it may come back.
        if ((controller.desiredSize ?? 0) < -MOST_WAITING) end();
        else controller.enqueue(encoder.encode(text));
      };
      const unsubscribe = hub.subscribe((event) => send(`data: ${JSON.stringify(event)}\n\n`));
      const beat = setInterval(() => send(": still here\n\n"), BEAT_MS);
      beat.unref();
      end = () => {
        unsubscribe();
        clearInterval(beat);
        end = () => {};
        try {
          controller.close();
        } catch {
          // The page has closed it.
        }
      };
      // Comes back soon where the server was away.
      send("retry: 1000\n\n");
      signal.addEventListener("abort", () => end());
    },
    cancel: () => end(),
  });
  return new Response(body, { headers: { "Content-Type": "text/event-stream", "Cache-Control": "no-store" } });
}
