// What the study and a process that does one of its runs tell each other.

import type { RunRecord, RunSpec } from "./records.js";

export interface RunOrder {
  spec: RunSpec;
  threads: number;
  /** Whether it is the process's only run. */
  isAlone: boolean;
}

export type RunReport =
  | { kind: "progress"; phase: string; done: number; of: number }
  | { kind: "done"; record: RunRecord }
  | { kind: "failed"; message: string };
