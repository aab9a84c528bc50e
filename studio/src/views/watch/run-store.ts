// Metrics and details of the runs that are looked at, kept up to date as events come.

import { effect, type ReadonlySignal, signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import type { MetricsLine, RunDetails } from "../../../../src/studio/protocol.js";
import { attempt, backend, isConnected, runs } from "../../store.js";

/** What is known of a run; `lines` is another array whenever it has grown. */
export interface KnownRun {
  lines: readonly MetricsLine[];
  details?: RunDetails;
}

/** Parts that follow each other at once; more would be a backend that never ends. */
const MOST_PARTS = 10_000;
/** Events come with every step; a page cannot draw as often. */
const PAUSE_MS = 250;

class WatchedRun {
  readonly known = signal<KnownRun>({ lines: [] });
  private next = 0;
  private isReading = false;
  private isStale = false;
  private readonly ends: (() => void)[] = [];
  private state = "";

  constructor(private readonly id: string) {
    this.ends.push(
      backend().subscribe((event) => {
        if (event.kind === "metrics" && event.run === id) void this.readMetrics();
        if (event.kind === "pictures" && event.run === id) void this.readDetails();
      }),
      // What it is doing tells when an adapter or an error is there.
      effect(() => {
        const run = runs.value.find((each) => each.id === id);
        const state = run ? `${run.state} ${run.canResume}` : "gone";
        if (isConnected.value && state !== this.state) {
          this.state = state;
          if (run) void this.readDetails().then(() => this.readMetrics());
        }
      }),
    );
  }

  end(): void {
    for (const end of this.ends) end();
  }

  private async readDetails(): Promise<void> {
    const details = await attempt(() => backend().run(this.id));
    if (details) this.known.value = { ...this.known.value, details };
  }

  private async readMetrics(): Promise<void> {
    this.isStale = true;
    if (this.isReading) return;
    this.isReading = true;
    await attempt(async () => {
      while (this.isStale) {
        this.isStale = false;
        for (let part = 0; part < MOST_PARTS; part++) {
          const { lines, next, isReset } = await backend().metrics(this.id, this.next);
          const isOver = next === this.next || lines.length === 0;
          this.next = next;
          if (lines.length > 0 || isReset) {
            const before = isReset ? [] : this.known.value.lines;
            this.known.value = { ...this.known.value, lines: [...before, ...lines] };
          }
          if (isOver) break;
        }
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      }
    });
    this.isReading = false;
  }
}

/** How many views look at a run, by its id. */
const watched = new Map<string, { run: WatchedRun; views: number }>();

/** The runs' metrics and details, as long as the caller is shown. */
export function useKnownRuns(ids: readonly string[]): ReadonlyMap<string, KnownRun> {
  const key = ids.join("\n");
  const [held, setHeld] = useState<ReadonlyMap<string, ReadonlySignal<KnownRun>>>(new Map());
  useEffect(() => {
    const wanted = key === "" ? [] : key.split("\n");
    const entries = wanted.map((id) => {
      const entry = watched.get(id) ?? { run: new WatchedRun(id), views: 0 };
      entry.views++;
      watched.set(id, entry);
      return [id, entry] as const;
    });
    setHeld(new Map(entries.map(([id, { run }]) => [id, run.known])));
    return () => {
      for (const [id, entry] of entries) {
        entry.views--;
        if (entry.views > 0) continue;
        entry.run.end();
        watched.delete(id);
      }
    };
  }, [key]);
  return new Map([...held].filter(([id]) => ids.includes(id)).map(([id, known]) => [id, known.value]));
}
