// The pictures along a run, of one prompt, out of the names in its folder. Pure: on a disk and in a browser's storage alike.

import { routeFile } from "../training/output-names.js";
import type { PromptPictures, RoutingTrace } from "./protocol.js";

/** The folder of a prompt. */
export interface PromptFolder {
  prompt: string;
  /** Its path in the run's folder. */
  folder: string;
  names: readonly string[];
  /** Undefined where there is no such file, or it is damaged. */
  readObject(name: string): Promise<Record<string, unknown> | undefined>;
}

/** What was drawn without the adapter, and step by step with it. */
export async function promptPictures({ prompt, folder, names, readObject }: PromptFolder): Promise<PromptPictures> {
  const without: string[] = [];
  const steps = new Map<number, { files: string[]; routes: RoutingTrace[] }>();
  for (const file of [...names].sort(bySeed)) {
    // Four digits: a list has a place for every number up to the largest, and a name may say any.
    const [, stem, step, number = "1"] = /^(without|step-(\d{1,15}))(?:-([1-9]\d{0,3}))?\.png$/.exec(file) ?? [];
    if (stem === undefined) continue;
    const path = `${folder}/${file}`;
    if (step === undefined) {
      without[Number(number) - 1] = path;
      continue;
    }
    const known = steps.get(Number(step)) ?? { files: [], routes: [] };
    steps.set(Number(step), known);
    known.files[Number(number) - 1] = path;
    const trace = names.includes(routeFile(file)) ? traceIn(await readObject(routeFile(file))) : undefined;
    if (trace) known.routes[Number(number) - 1] = trace;
  }
  return {
    prompt,
    images: Math.max(without.length, ...[...steps.values()].map(({ files }) => files.length)),
    without: without.filter(Boolean),
    steps: [...steps]
      .sort(([a], [b]) => a - b)
      .map(([step, { files, routes }]) => ({
        step,
        files: files.filter(Boolean),
        // One for each picture, or none: they are told apart by their place.
        ...(routes.length > 0 && routes.length === files.length && { routes }),
      })),
  };
}

/** Undefined where it is damaged: its picture is there all the same. */
function traceIn(trace: Record<string, unknown> | undefined): RoutingTrace | undefined {
  const { timesteps, energies, gates } = trace ?? {};
  if (!isNumbers(timesteps) || !isRows(energies, timesteps.length) || !isRows(gates, timesteps.length))
    return undefined;
  return { timesteps, energies, gates, weights: gates };
}

const isNumbers = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((each) => typeof each === "number");

/** Whether a value is `[S][N][K]`: for every timestep rows of numbers, all of one length. */
function isRows(value: unknown, steps: number): value is number[][][] {
  if (!Array.isArray(value) || value.length !== steps || !value.every(Array.isArray)) return false;
  const rows: unknown[] = value.flat();
  return rows.every((row) => isNumbers(row) && row.length === (rows[0] as number[]).length);
}

const bySeed = (a: string, b: string): number => a.length - b.length || (a < b ? -1 : 1);
