// How long runs will take, from those that are done.

import { median } from "./averages.js";
import type { Measures, RunRecord, RunSpec } from "./records.js";

/** Seconds of a step of eight drawings with the embedded model on one core, where nothing is known yet. */
const UNKNOWN_STEP = 0.28;
/** Seconds of all that is no step, likewise. */
const UNKNOWN_REST: Readonly<Record<Measures, number>> = { speed: 8, error: 10, all: 18 };

/** Estimates a run's seconds: those of its method's steps, and what runs with the same measures took beside their steps. */
export function runTimes(records: Iterable<RunRecord>): (spec: RunSpec) => number {
  const steps = new Map<string, number[]>();
  const rests = new Map<Measures, number[]>();
  const push = <K>(map: Map<K, number[]>, key: K, value: number) => map.set(key, [...(map.get(key) ?? []), value]);
  for (const { spec, secondsPerStep = 0, seconds } of records) {
    if (secondsPerStep > 0) push(steps, spec.method, secondsPerStep);
    push(rests, spec.measures, Math.max(0, seconds - secondsPerStep * spec.steps));
  }
  const perMethod = new Map([...steps].map(([method, values]) => [method, median(values)]));
  const anyMethod = perMethod.size > 0 ? median([...perMethod.values()]) : UNKNOWN_STEP;
  const perMeasures = new Map([...rests].map(([measures, values]) => [measures, median(values)]));
  return ({ method, measures, steps }) =>
    steps * (perMethod.get(method) ?? anyMethod) + (perMeasures.get(measures) ?? UNKNOWN_REST[measures]);
}
