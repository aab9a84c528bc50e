// Runs the built program `fera` as a user would, and makes what it works on.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import sharp from "sharp";
import "../../src/storage/node.js";
import { FeRAModel, type FeRAOptions } from "../../src/adapters/index.js";
import { UNet2DConditionModel } from "../../src/models/index.js";
import { Generator, randn } from "../../src/tensor/random.js";

const PROGRAM = "dist/cli/main.js";
/** Ends a program that hangs. */
const TIME_LIMIT_MS = 110_000;

/** How a run of the program ended. */
export interface ProgramResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** A program under way. */
export interface RunningProgram {
  result: Promise<ProgramResult>;
  /** By Ctrl-C, or as another signal does. */
  interrupt(signal?: NodeJS.Signals): void;
  /** Reads nothing more of what it prints, as `| head` does. */
  leave(): void;
}

/** Starts `fera` with these arguments. */
export function startFera(...args: string[]): RunningProgram {
  if (!existsSync(PROGRAM)) throw new Error(`${PROGRAM} is missing: run npm run build first.`);
  const child = spawn(process.execPath, [PROGRAM, ...args], { timeout: TIME_LIMIT_MS });
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (text: string) => {
      output[name] += text;
    });
  }
  const result = new Promise<ProgramResult>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, ...output }));
  });
  const leave = () => {
    child.stdout.destroy();
    child.stderr.destroy();
  };
  return { result, interrupt: (signal = "SIGINT") => child.kill(signal), leave };
}

/** Runs `fera` to its end. */
export const runFera = (...args: string[]): Promise<ProgramResult> => startFera(...args).result;

/** Writes six small pictures, whose names are captions that the tiny pipeline's tokenizer has room for. */
export async function writeTinyImages(dir: string): Promise<void> {
  await mkdir(dir, { recursive: true });
  for (const [index, name] of ["a-red-circle", "a-blue-square", "red", "blue", "circle", "square"].entries()) {
    const background = { r: 40 * index, g: 255 - 40 * index, b: (90 * index) % 255 };
    await sharp({ create: { width: 40, height: 36, channels: 3, background } })
      .png()
      .toFile(join(dir, `${name}.png`));
  }
}

/** Writes adapters with random values for a pipeline's UNet. */
export async function writeTinyAdapter(pipeline: string, path: string, options: FeRAOptions = {}): Promise<void> {
  const fera = new FeRAModel(await UNet2DConditionModel.fromPretrained(pipeline, { subfolder: "unet" }), options);
  const generator = new Generator(3);
  for (const [name, { data, shape }] of fera.parameters) {
    if (name.endsWith(".up")) data.set(randn(shape, { generator }).data.map((value) => value / 10));
  }
  await fera.saveAdapters(path);
}
