// What the studio and its drawing process tell each other. Types alone.

import type { DrawCell } from "./draw-cells.js";
import type { DrawnImage } from "./protocol.js";

/** Pictures to draw. */
export interface DrawJob {
  job: string;
  /** As `loadPipeline` takes it, and its name in the pictures' texts. */
  model: string;
  modelName: string;
  cells: DrawCell[];
  /** What adapters are called, by their ids. */
  labels: Record<string, string>;
  /** Where the pictures go. */
  folder: string;
}

/** To the process. */
export type DrawOrder = { kind: "draw"; job: DrawJob } | { kind: "cancel"; job: string };

/** From the process. */
export type DrawReport =
  | { kind: "drawing"; job: string; done: number; total: number; activity: string }
  | { kind: "drawn"; job: string; image: DrawnImage }
  | { kind: "ended"; job: string; error?: string };
