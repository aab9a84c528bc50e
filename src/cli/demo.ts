// fera demo: the whole job on the embedded model and data. What `npm start` runs.

import { join } from "node:path";
import { Command } from "commander";
import { DEMO_STYLES, type DemoReport, runDemo } from "../demo/index.js";
import { TrainingError } from "../errors.js";
import { prepareOutputFolder } from "../training/index.js";
import { choice, flag, integer, number, type OptionValues, text } from "../training/options/option.js";
import { formatCount, formatDuration, shellCommand } from "./format.js";
import { interruptedExitCode, interruptible } from "./interrupt.js";
import { RUNTIME_OPTIONS } from "./model-options.js";
import { addOptions, kebabCase, readOptions } from "./options.js";
import "./platform.js";
import { print } from "./printable.js";
import { Progress } from "./progress.js";
import { alone, readSettings, settingsPath } from "./training-run.js";

const OPTIONS = {
  style: choice("icon set to learn", DEMO_STYLES).withDefault("fluent-emoji-high-contrast"),
  output: text("folder for the adapter, pictures and report", "FOLDER").withDefault("runs/demo"),
  steps: integer("optimizer steps", { min: 1 }).withDefault(600),
  batchSize: integer("images per batch", { min: 1 }).withDefault(8),
  learningRate: number("learning rate of AdamW", { min: 0 }).withDefault(1.5e-3),
  seed: integer("the same seed gives the same training", { min: 0 }).withDefault(0),
  resume: flag("go on from the newest checkpoint in --output"),
  ...RUNTIME_OPTIONS,
};

/** The command. */
export function demoCommand(): Command {
  const command = new Command("demo").description(
    "Teaches the embedded model another icon style and shows what it learned.",
  );
  addOptions(command, OPTIONS, { config: true });
  return command.action(async () => {
    const options = await readOptions(command, OPTIONS);
    await prepareOutputFolder(options.output);
    if (await readSettings(options.output)) {
      throw new TrainingError(
        `output folder ${options.output}: holds a training of fera train (${settingsPath(options.output)}). ` +
          "Choose another --output.",
      );
    }
    process.exitCode = await interruptible("Stopping after this step.", (signal) =>
      alone(options.output, () => demo(options, signal)),
    );
  });
}

async function demo(options: OptionValues<typeof OPTIONS>, signal: AbortSignal): Promise<number> {
  const { style, output, steps } = options;
  print(`Teaching the embedded icon model the style ${style}: ${steps} steps of FeRA, on this machine only.`);
  let progress: Progress | undefined;
  const report = await runDemo({
    ...options,
    signal,
    onPhase: (phase) => {
      progress?.end();
      print(`- ${phase}`);
    },
    onStep: ({ step, loss }) => {
      progress ??= new Progress({ label: "training", total: steps, unit: "steps" });
      progress.update(step, `loss ${loss.toFixed(4)}`);
    },
  });
  progress?.end();
  if (!report) {
    print(`Stopped; a checkpoint is in ${join(output, "checkpoints")}. Go on with:`);
    print(`  ${shellCommand(["npx", "fera", "demo", ...changedFlags(options), "--resume"])}`);
    return interruptedExitCode();
  }
  printReport(report, output);
  return 0;
}

/** The flags whose values are not the defaults: a resumed run needs the same. */
function changedFlags(options: OptionValues<typeof OPTIONS>): string[] {
  return Object.entries(OPTIONS).flatMap(([name, { defaultValue }]) => {
    const value = options[name as keyof typeof options];
    return value === defaultValue || name === "resume" ? [] : [`--${kebabCase(name)}`, String(value)];
  });
}

function printReport(report: DemoReport, output: string): void {
  const { heldOut, score } = report;
  const percent = (share: number) => `${(100 * share).toFixed(0)} %`.padStart(5);
  const change = 100 * (1 - heldOut.after / heldOut.before);
  const fewer = change >= 0 ? `${change.toFixed(1)} % less` : `${(-change).toFixed(1)} % more`;
  print(
    `
${formatCount(report.trainableParameters)} parameters in ${report.adaptedLayers} layers, trained on ${formatCount(report.trainImages)} drawings
held-out noise-prediction error (${heldOut.images} drawings never trained on, same noise and timesteps):
  before ${heldOut.before.toFixed(5)}
  after  ${heldOut.after.toFixed(5)}   ${fewer}
held-out names, drawn once each:
  base     ${percent(score.baseNearest)} nearest to its own true drawing, among all that it knows
  adapted  ${percent(score.adaptedNearest)} nearest to its own in the new style, among all held-out ones (by chance ${percent(1 / heldOut.images)})
           ${percent(score.closerThanBase)} closer to it than what the base draws
${formatDuration(report.seconds)} in all, ${report.stepsPerSecond.toFixed(2)} steps/s while training

${join(output, "before-after.png")}   held-out names: base, adapted, true target
${join(output, "progress.png")}       some of them along the training
${join(output, "routing.png")}        band energies and gates along the sampling trajectory
${join(output, "report.json")}        these figures, and the configuration
${report.adapter}   the adapter; try:
  ${shellCommand(["npx", "fera", "generate", "--model", "assets/icons", "--adapter", report.adapter, "--prompt", "red apple", "--output", "apple.png"])}`,
  );
}
