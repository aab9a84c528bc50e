// What a training's checkpoint or folder holds, in lines.

import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { formatBytes } from "../storage/file-descriptions.js";
import { readCheckpoint } from "../training/checkpoint.js";
import { latestCheckpoint, lossCurve, readMetrics } from "../training/index.js";
import { outputPath } from "../training/output-folder.js";
import { counted, formatCount, shellCommand } from "./format.js";
import { shortened } from "./printable.js";
import { readSettings } from "./training-run.js";

/** Step, parameters, optimizer, and the settings of the training. */
export async function describeCheckpoint(path: string): Promise<string[]> {
  const { step, parameters, optimizer, average, fingerprint } = await readCheckpoint(path);
  const values = [...parameters.values()].reduce((sum, { size }) => sum + size, 0);
  const { size } = await stat(path);
  return [
    `${path}: training checkpoint, ${formatBytes(size)}`,
    `  after ${counted(step, "step")}`,
    `  ${counted(parameters.size, "trained tensor")}, ${formatCount(values)} parameters${average ? ", with an average" : ""}`,
    `  ${counted(optimizer.size, "tensor")} of the optimizer's state`,
    ...describeFingerprint(fingerprint),
  ];
}

/** How far a training came. */
export async function describeRun(dir: string): Promise<string[]> {
  const names = await readdir(dir);
  const lines = [`${dir}: training`];
  const settings = await readSettings(dir);
  if (settings) lines.push(`  model ${String(settings.model)}`, `  data ${String(settings.data)}`);
  if (names.includes("metrics.jsonl")) {
    const { steps, losses, smoothed } = lossCurve(await readMetrics(outputPath(dir, "metrics")));
    const of = typeof settings?.steps === "number" ? ` of ${formatCount(settings.steps)}` : "";
    if (steps.length === 0) lines.push(`  no step${of} done`);
    else {
      lines.push(
        `  ${formatCount(steps.at(-1)!)}${of} steps, loss ${losses[0]!.toFixed(4)} at first, ` +
          `${smoothed.at(-1)!.toFixed(4)} at last (smoothed)`,
      );
    }
    if (settings && (steps.at(-1) ?? 0) < Number(settings.steps)) {
      lines.push(`  not finished: ${shellCommand(["npx", "fera", "train", "--resume", "--output", dir])}`);
    }
  }
  const checkpoint = await latestCheckpoint(join(dir, "checkpoints"));
  if (checkpoint) lines.push(`  newest checkpoint ${checkpoint}`);
  const adapter = String(settings?.adapterName ?? "adapter.safetensors");
  if (names.includes(adapter)) lines.push(`  adapter ${join(dir, adapter)}`);
  return lines;
}

function describeFingerprint(fingerprint: string): string[] {
  let settings: unknown;
  try {
    settings = JSON.parse(fingerprint);
  } catch {
    return fingerprint === "" ? [] : [shortened(`  settings ${fingerprint}`)];
  }
  if (typeof settings !== "object" || settings === null) return [shortened(`  settings ${fingerprint}`)];
  return [
    "  settings",
    // What the model's own files say is of no interest here.
    ...Object.entries(settings)
      .filter(([name]) => name !== "models")
      .map(([name, value]) => shortened(`    ${name} ${JSON.stringify(value)}`)),
  ];
}
