// fera evidence: the study of when routed experts are worth it, run or as a page.

import { Command } from "commander";
import {
  listEvidence,
  METHODS,
  PART_TITLES,
  PARTS,
  PRESET_NAMES,
  PRESETS,
  reportEvidence,
  runEvidence,
} from "../evidence/index.js";
import { ICON_STYLES, type IconStyle } from "../training/data/icons.js";
import { prepareOutputFolder } from "../training/index.js";
import { choice, flag, integer, list, type OptionValues, text } from "../training/options/option.js";
import { formatDuration, formatTable, shellCommand } from "./format.js";
import { interruptible } from "./interrupt.js";
import { addOptions, readOptions } from "./options.js";
import "./platform.js";
import { print, printError } from "./printable.js";
import { Progress } from "./progress.js";
import { alone } from "./training-run.js";
import { UsageError } from "./usage-error.js";

const STYLES = Object.keys(ICON_STYLES);

/** What a preset gives, for help. */
const ofPreset = (of: (preset: (typeof PRESETS)[keyof typeof PRESETS]) => number | string): string =>
  `default: ${PRESET_NAMES.map((name) => `${of(PRESETS[name])} of ${name}`).join(", ")}`;

const OPTIONS = {
  preset: choice(
    "how large the study is: quick has fewer steps, names and methods, and wider intervals",
    PRESET_NAMES,
  ).withDefault("quick"),
  part: list(`parts of the study, in any order: ${PARTS.join(", ")}; the preset's by default`, "A,B"),
  seeds: integer("trainings of every method on every task, each with its own order, noise and beginning", {
    min: 1,
  }).withDefault(5),
  steps: integer(`optimizer steps of a training; ${ofPreset(({ steps }) => steps)}`, { min: 1 }),
  processes: integer("runs at the same time, each with its share of the threads", { min: 1, max: 256 }).withDefault(1),
  output: text("folder of the page and the runs; what is there is not run again", "FOLDER").withDefault(
    "docs/evidence",
  ),
  list: flag("shows the parts with their runs and about how long they take, and runs nothing"),
  report: flag("writes the page from the runs that are there, and runs nothing"),
  methods: list(
    `only these methods, beside LoRA: ${METHODS.map(({ name }) => name).join(", ")}, or a variant's name in configurations.json`,
    "A,B",
  ),
  styles: list(`only these icon sets: ${STYLES.slice(1).join(", ")}`, "A,B"),
  untuned: flag("one learning rate for all methods in place of tuned ones: sooner, and no comparison to rely on"),
  model: text("folder of a model that draws icons; the embedded one by default", "FOLDER"),
  batchSize: integer("drawings in a batch", { min: 1 }).withDefault(8),
  drawingSteps: integer(`sampling steps of a drawing; ${ofPreset(({ drawingSteps }) => drawingSteps)}`, { min: 1 }),
  limit: integer(`most held-out names, spread evenly over all; ${ofPreset(({ limit }) => limit ?? "all")}`, { min: 1 }),
  minutes: integer("no run is begun after so many minutes; the same command goes on with what is left", { min: 1 }),
  threads: integer("threads of all processes together; by default the machine's", { min: 1, max: 1024 }),
  format: choice("how --list prints", ["table", "json"]).withDefault("table"),
};

/** The command. */
export function evidenceCommand(): Command {
  const command = new Command("evidence").description(
    "Compares FeRA, LoRA and others on icon styles at equal parameters, steps and time, and writes a page of what it found.",
  );
  addOptions(command, OPTIONS, { config: true });
  return command.action(async () => {
    const options = await readOptions(command, OPTIONS);
    refuseUnknown(command, options);
    const study = {
      ...options,
      parts: options.part as (typeof PARTS)[number][] | undefined,
      styles: options.styles as IconStyle[] | undefined,
      isTuned: !options.untuned,
    };
    if (options.list) return printList(await listEvidence(study), options);
    if (options.report) {
      print(`written to ${await reportEvidence(options.output, options.model)}`);
      return;
    }
    await prepareOutputFolder(options.output);
    const advice = "Stopping; the runs under way are lost, all others are kept.";
    const { page, failures, left } = await interruptible(advice, (signal) =>
      alone(options.output, () => run(study, signal)),
    );
    print(`written to ${page}`);
    if (left > 0) print(`${left} runs are left; the same command goes on with them`);
    if (failures.length > 0) {
      printError(`fera: ${failures.length} runs failed; run the command again to try them once more.`);
      process.exitCode = 1;
    }
  });
}

async function run(study: Parameters<typeof runEvidence>[0], signal: AbortSignal) {
  let progress: Progress | undefined;
  try {
    return await runEvidence({
      ...study,
      signal,
      onMessage: (message) => (progress ? progress.say(message) : printError(message)),
      onProgress: ({ done, total, running, secondsLeft }) => {
        // The number of runs grows where later parts turn out to be known.
        progress ??= new Progress({ label: "evidence", total, unit: "runs" });
        progress.update(Math.min(done, total - 1), running.join("; "), secondsLeft);
      },
    });
  } finally {
    progress?.end();
  }
}

function printList(
  parts: Awaited<ReturnType<typeof listEvidence>>,
  { format, processes, output }: OptionValues<typeof OPTIONS>,
): void {
  if (format === "json") {
    print(JSON.stringify(parts, undefined, 2));
    return;
  }
  const rows = parts.map(({ part, done, runs, seconds }) => [
    part,
    PART_TITLES[part],
    `${runs}`,
    `${done}`,
    formatDuration(seconds / processes),
  ]);
  const total = parts.reduce((sum, { seconds }) => sum + seconds, 0) / processes;
  for (const line of formatTable([["part", "what for", "runs", "done", "about"], ...rows], 2)) print(line);
  print(`about ${formatDuration(total)} in all for ${processes === 1 ? "one process" : `${processes} processes`}`);
  print(`One part: ${shellCommand(["npx", "fera", "evidence", "--part", parts[0]!.part, "--output", output])}`);
}

function refuseUnknown(command: Command, { part = [], styles = [] }: OptionValues<typeof OPTIONS>): void {
  const checks = [
    ["--part", part, PARTS],
    ["--styles", styles, STYLES.slice(1)],
  ] as const;
  for (const [name, given, known] of checks) {
    const odd = given.find((one) => !(known as readonly string[]).includes(one));
    if (odd !== undefined) {
      throw new UsageError(command, `${name} must be among ${known.join(", ")}; got ${JSON.stringify(odd)}.`);
    }
  }
}
