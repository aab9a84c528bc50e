// What the study's page says of itself: learning rates, limits, how it was made.

import { BASE_STYLE } from "../demo/index.js";
import { ALL_METHODS } from "./all-methods.js";
import { fourDigits, markdownTable } from "./markdown.js";
import { methodNamed } from "./methods.js";
import { PRESETS, type PresetName } from "./presets.js";
import type { RunRecord, RunSpec } from "./records.js";
import type { PageInputs } from "./report-inputs.js";
import { titleOf } from "./report-tables.js";
import { ratesOf } from "./spec-maker.js";
import { TUNING_STYLE } from "./tasks.js";

/** Errors of all tries; empty where there are none. */
export function ratesSection(
  specs: readonly RunSpec[],
  records: ReadonlyMap<string, RunRecord>,
  preset: PresetName,
): string[] {
  const names = [...new Set(specs.map(({ method }) => method))];
  const rows = names.flatMap((name) => {
    const tries = specs.filter(({ method }) => method === name);
    const errors = tries.map(({ id }) => records.get(id)?.heldOut?.error);
    if (errors.every((error) => error === undefined)) return [];
    const least = Math.min(...errors.map((error) => error ?? Number.POSITIVE_INFINITY));
    const all = ratesOf(methodNamed(name, ALL_METHODS), preset);
    const cells = tries.map(({ learningRate }, i) => {
      const error = errors[i];
      if (error === undefined) return `${learningRate}: –`;
      const text = `${learningRate}: ${fourDigits(error)}`;
      return error === least ? `**${text}**` : text;
    });
    const best = tries[errors.indexOf(least)]!.learningRate;
    const isEdge = best === all[0] || best === all.at(-1);
    return [[titleOf(name), ...cells, isEdge ? "at the edge" : ""]];
  });
  if (rows.length === 0) return [];
  return [
    "## Learning rates",
    `Held-out error on ${TUNING_STYLE}, one seed, as many tries for every method. Where the best is at the edge, a rate beyond it ` +
      "might be better still.",
    markdownTable(["method", "1", "2", "3", "4", ""], rows),
  ];
}

/** Whatever was found. */
export const LIMITS = [
  "## What this cannot tell",
  "",
  "- One small model that draws icons on white. Large models, photographs and other subjects may differ.",
  `- Forgetting is measured on the base's own style (${BASE_STYLE}) and on names that no adapter saw.`,
  "- Held-out error is the error of predicted noise; drawings are measured by colours, edges and shapes, not by people.",
  "- Cost at Stable Diffusion's size is another question: `npm run bench -- methods`.",
  `- Rates were tuned on ${TUNING_STYLE} with one seed; a method that needs another rate for another style is at a disadvantage.`,
].join("\n");

/** Runs, hours, machines, files and the command. */
export function howSection({ study, records, plan, budget, runsFile }: PageInputs): string[] {
  const used = plan.runs.flatMap(({ id }) => records.get(id) ?? []);
  const hours = used.reduce((sum, { seconds }) => sum + seconds, 0) / 3600;
  const machines = [...new Set(used.map(({ machine }) => JSON.stringify(machine)))].map(
    (text) => JSON.parse(text) as Record<string, string>,
  );
  const finished = used.map(({ finishedAt }) => finishedAt).sort();
  return [
    "## How it was made",
    [
      `- ${used.length} runs, ${hours.toFixed(1)} hours of a process in all${finished.length > 0 ? `, from ${finished[0]!.slice(0, 10)} to ${finished.at(-1)!.slice(0, 10)}` : ""}.`,
      `- Model ${study.settings.modelHash}; the budget is ${budget.parameters} trained parameters; drawings with ${study.settings.drawingSteps} steps${study.settings.limit === undefined ? "" : `; at most ${study.settings.limit} held-out names`}.`,
      ...machines.map(
        (machine) =>
          `- ${Object.entries(machine)
            .map(([name, value]) => `${name} ${value}`)
            .join(", ")}`,
      ),
      `- All numbers: [${runsFile}](${runsFile}), [runs.csv](runs.csv); configurations and parameters: [configurations.json](configurations.json).`,
    ].join("\n"),
    `\`\`\`\n${commandOf(study)}\n\`\`\``,
  ];
}

function commandOf({ preset, seeds, steps, isTuned, settings }: PageInputs["study"]): string {
  const usual = PRESETS[preset];
  const flags = [
    ["steps", steps, usual.steps],
    ["limit", settings.limit, usual.limit],
    ["drawing-steps", settings.drawingSteps, usual.drawingSteps],
    ["batch-size", settings.batchSize, 8],
  ] as const;
  const own = flags.flatMap(([name, value, preset]) => (value === preset ? [] : [`--${name} ${value}`]));
  return [
    "npx fera evidence",
    `--preset ${preset}`,
    `--seeds ${seeds}`,
    ...own,
    ...(isTuned ? [] : ["--untuned"]),
  ].join(" ");
}
