// The states of a run. Pure: the page knows them, too.

import type { RunState } from "./protocol.js";

export const RUN_STATES: readonly RunState[] = [
  ...(["queued", "starting", "running", "stopping", "paused", "stopped", "finished", "failed"] as const),
];

/** Whether nothing more comes of it, unless it is resumed. */
export const hasEnded = (state: RunState): boolean => state === "stopped" || state === "finished" || state === "failed";

/** Whether a process trains, or is just beginning or ending. */
export const isAtWork = (state: RunState): boolean =>
  state === "starting" || state === "running" || state === "stopping";
