// The study's folder as it is published: a page with tables and plots, all runs as JSON and CSV, configurations. Everything is
// made of the runs' records; no sentence claims what no corrected interval says. Node only.

import { join } from "node:path";
import { writePng } from "../images/image-file.js";
import { writeFileAtomically } from "../storage/file-access.js";
import { ALL_METHODS } from "./all-methods.js";
import { mean } from "./averages.js";
import { type Budget, parametersOf } from "./budget.js";
import { HYPOTHESES } from "./hypotheses.js";
import type { RunRecord } from "./records.js";
import { compareOnAllNames } from "./report-all-names.js";
import { compareAll } from "./report-groups.js";
import type { ReportInputs } from "./report-inputs.js";
import { evidencePage } from "./report-page.js";
import { evidencePlots } from "./report-plots.js";
import { mainAtSameRate } from "./report-same-rate.js";
import { RUNS_FILE, writeAllRuns, writeJson } from "./study-folder.js";
import { isTest, taskName } from "./tasks.js";

/**
 * Writes page, plots, runs and configurations.
 *
 * @returns The page's path.
 */
export async function writeEvidence(folder: string, inputs: ReportInputs): Promise<string> {
  const { study, plan, records, budget } = inputs;
  const used = plan.runs.flatMap(({ id }) => records.get(id) ?? []);
  await writeAllRuns(folder, study, used);
  await writeFileAtomically(join(folder, "runs.csv"), [new TextEncoder().encode(runsAsCsv(used))]);
  await writeJson(join(folder, "configurations.json"), configurations(budget), 1);
  const main = compareAll((plan.byPart.get("main") ?? []).filter(isTest), records);
  const sameRate = mainAtSameRate(plan, records, study.steps);
  const plots = await evidencePlots(main, sameRate);
  for (const { file, picture } of plots) await writePng(join(folder, file), picture);
  const page = join(folder, "README.md");
  const text = evidencePage({
    ...inputs,
    main,
    sameRate,
    allNames: compareOnAllNames(plan, records),
    plots: plots.map(({ file, title }) => ({ file, title })),
    runsFile: RUNS_FILE,
  });
  await writeFileAtomically(page, [new TextEncoder().encode(text)]);
  return page;
}

/** One line for each run. */
export function runsAsCsv(records: readonly RunRecord[]): string {
  const columns: [string, (record: RunRecord) => string | number | undefined][] = [
    ["id", ({ spec }) => spec.id],
    ["method", ({ spec }) => spec.method],
    ["task", ({ spec }) => taskName(spec.task)],
    ["seed", ({ spec }) => spec.seed],
    ["steps", ({ spec }) => spec.steps],
    ["learning_rate", ({ spec }) => spec.learningRate],
    ["parameters", ({ parameters }) => parameters],
    ["train_images", ({ trainImages }) => trainImages],
    ["held_out_error", ({ heldOut }) => heldOut?.error],
    ...["low", "middle", "high"].map((band): [string, (record: RunRecord) => number | undefined] => [
      `error_${band}_band`,
      ({ heldOut }) => heldOut?.byBand[band],
    ]),
    ...(["lab", "edges", "shape"] as const).map((key): [string, (record: RunRecord) => number | undefined] => [
      `${key}_distance`,
      ({ heldOut }) => {
        const distances = (heldOut?.names ?? []).flatMap(({ drawing }) => (drawing ? [drawing[key]] : []));
        return distances.length > 0 ? mean(distances) : undefined;
      },
    ]),
    ["nearest_share", ({ drawings }) => drawings?.nearestShare],
    ["diversity", ({ drawings }) => drawings?.diversity],
    ["own_style_error", ({ own }) => own?.error],
    ["own_style_base_error", ({ own }) => own?.base],
    ["own_style_drift", ({ own }) => own?.drift],
    ["seconds_per_step", ({ secondsPerStep }) => secondsPerStep],
    ["cpu_seconds_per_step", ({ cpuSecondsPerStep }) => cpuSecondsPerStep],
    ["peak_memory_bytes", ({ peakMemoryBytes }) => peakMemoryBytes],
    ["file_bytes", ({ fileBytes }) => fileBytes],
    ["seconds", ({ seconds }) => seconds],
  ];
  const cell = (value: string | number | undefined) => {
    if (value === undefined) return "";
    return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(6))) : String(value);
  };
  const lines = records.map((record) => columns.map(([, of]) => cell(of(record))).join(","));
  return `${[columns.map(([name]) => name).join(","), ...lines].join("\n")}\n`;
}

function configurations(budget: Budget): object {
  const predictions = new Map(HYPOTHESES.map(({ method, prediction }) => [method.name, prediction]));
  return {
    budget: budget.parameters,
    methods: ALL_METHODS.map((method) => {
      const config = method.config?.(budget);
      const { name, title, kind, isBudgeted, tunedAs, rateFactor, routerLr } = method;
      return {
        ...{ name, title, kind, isBudgeted, tunedAs, rateFactor, routerLr, prediction: predictions.get(name) },
        ...(config && {
          adapter: config.adapterType,
          parameters: parametersOf(config, budget.layers),
          config: config.toJSON(),
        }),
      };
    }),
  };
}
