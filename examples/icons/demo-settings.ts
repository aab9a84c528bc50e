// Trains the demo with several settings over several seeds and prints a row for each: how its own were chosen, and a plain LoRA of
// the same size beside them. What is there is not trained again.
// Usage: npx tsx examples/icons/demo-settings.ts OUTPUT_FOLDER [--settings A,B] [--seeds 0,1,2] [--steps N] [--style NAME] [--threads N]

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type AdapterConfig, FeRAConfig, LoRAConfig } from "../../src/adapters/index.js";
import { ADAPTED_LAYERS, DEMO_LAYERS, type DemoReport, demoConfig, runDemo } from "../../src/demo/index.js";
import type { IconStyle } from "../../src/training/data/icons.js";
import "../../src/storage/node.js";
import "../../src/runtime/node.js";

const SETTINGS: Record<string, () => AdapterConfig> = {
  demo: demoConfig,
  attention: () => new FeRAConfig({ ...demoConfig(), targetModules: ADAPTED_LAYERS }),
  // The demo's three experts of rank 8 as one: as many numbers but for the router, and a scale of 1 as well.
  lora: () => new LoRAConfig({ rank: 24, alpha: 24, targetModules: DEMO_LAYERS }),
  "lora-attention": () => new LoRAConfig({ rank: 24, alpha: 24, targetModules: ADAPTED_LAYERS }),
};

const { positionals, values: flags } = parseArgs({
  options: {
    settings: { type: "string", default: Object.keys(SETTINGS).join(",") },
    seeds: { type: "string", default: "0,1,2" },
    steps: { type: "string", default: "600" },
    style: { type: "string", default: "fluent-emoji-high-contrast" },
    threads: { type: "string" },
  },
  allowPositionals: true,
});
const [folder = "runs/demo-settings"] = positionals;

for (const seed of flags.seeds.split(",").map(Number)) {
  for (const name of flags.settings.split(",")) {
    const config = SETTINGS[name];
    if (!config) throw new Error(`--settings must be of ${Object.keys(SETTINGS).join(", ")}; got ${name}`);
    const output = join(folder, `${flags.style}-${name}-${flags.steps}-${seed}`);
    const report = (await kept(output)) ?? (await train(output, config(), seed));
    const { heldOut, score, trainableParameters, stepsPerSecond } = report;
    const shares = [score.adaptedNearest, score.closerThanBase].map((share) => `${(100 * share).toFixed(0)} %`);
    const error = `${heldOut.before.toFixed(4)} → ${heldOut.after.toFixed(4)}`;
    const speed = `${stepsPerSecond.toFixed(2)} steps/s`;
    console.log(`| ${[name, seed, trainableParameters, error, ...shares, speed].join(" | ")} |`);
  }
}
process.exit(0);

async function kept(output: string): Promise<DemoReport | undefined> {
  const text = await readFile(join(output, "report.json"), "utf8").catch(() => undefined);
  return text === undefined ? undefined : JSON.parse(text);
}

async function train(output: string, config: AdapterConfig, seed: number): Promise<DemoReport> {
  const report = await runDemo({
    style: flags.style as IconStyle,
    output,
    config,
    steps: Number(flags.steps),
    batchSize: 8,
    learningRate: 1.5e-3,
    seed,
    ...(flags.threads !== undefined && { threads: Number(flags.threads) }),
  });
  if (!report) throw new Error(`${output}: the training did not finish`);
  return report;
}
