// A line of metrics.jsonl as pages draw it: what would break a chart is no line. Pure: the tab reads its files with it, too.

import { isObject, jsonIn } from "../storage/json.js";
import type { MetricsLine } from "./protocol.js";

/** What is measured beside numbers: lists, and the validation. */
const LISTS = ["timesteps", "sampleLosses", "gates"];

/** Undefined where the text is no line of a training: the program's own reading of the file names it. */
export function metricsLineIn(text: string): MetricsLine | undefined {
  const line = jsonIn(text);
  return isMetricsLine(line) ? line : undefined;
}

/** Whether a line has what charts are drawn of: numbers, but for the lists and the validation. */
function isMetricsLine(line: unknown): line is MetricsLine {
  if (!isObject(line) || typeof line.step !== "number") return false;
  return Object.entries(line).every(([name, value]) => {
    if (LISTS.includes(name)) return Array.isArray(value);
    return name === "validation" ? isObject(value) : typeof value === "number" || value === null;
  });
}
