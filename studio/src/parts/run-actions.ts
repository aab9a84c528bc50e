// What can be done with a run, and how it is called: by its state, and by whether this studio started it.

import type { RunAction, RunState, RunSummary } from "../../../src/studio/protocol.js";

/** A button of a run. */
export interface OfferedAction {
  action: RunAction;
  label: string;
  /** What happens, for those who hover. */
  explanation: string;
}

export const STATE_NAMES: Readonly<Record<RunState, string>> = {
  queued: "Queued",
  starting: "Starting",
  running: "Running",
  stopping: "Stopping",
  paused: "Paused",
  stopped: "Stopped",
  finished: "Finished",
  failed: "Failed",
};

/** The buttons that a run has, in their order. */
export function actionsOf({ state, isOurs, canResume }: RunSummary): OfferedAction[] {
  const offered: OfferedAction[] = [];
  const isRunning = state === "starting" || state === "running";
  const isResting = state === "paused" || state === "stopped" || state === "failed";
  if (isOurs && isRunning) {
    offered.push({
      action: "pause",
      label: "Pause",
      explanation: "Ends after this step with a checkpoint, and keeps its place until it is resumed.",
    });
  }
  if (canResume && isResting) {
    offered.push({ action: "resume", label: "Resume", explanation: "Goes on from its last checkpoint." });
  }
  if (isOurs && (isRunning || state === "paused")) {
    offered.push({
      action: "stop",
      label: "Stop",
      explanation: "Ends after this step with a checkpoint, and lets the next one start.",
    });
  }
  if (isOurs && state === "queued") {
    offered.push({ action: "stop", label: "Take out", explanation: "Takes it out of the queue." });
  }
  if (isOurs && (isResting || state === "finished")) {
    offered.push({ action: "remove", label: "Remove", explanation: "Deletes its folder with all that it made." });
  }
  return offered;
}

/** Places in the queue by run, from 1: the list's order is the queue's. */
export function queuePlaces(runs: readonly RunSummary[]): Map<string, number> {
  const queued = runs.filter(({ state }) => state === "queued").sort((a, b) => a.changedAt - b.changedAt);
  return new Map(queued.map(({ id }, index) => [id, index + 1]));
}
