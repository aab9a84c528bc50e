// A training that is killed again and again, at any moment, ends as one that was never cut off. FERA_KILLS says how often.

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Generator } from "../../src/tensor/random.js";
import { readCheckpoint } from "../../src/training/checkpoint.js";
import { runFera, startFera, writeTinyImages } from "../support/fera-program.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

const KILLS = Number(process.env.FERA_KILLS ?? 5);
const STEPS = 40;
/** A kill takes about as long as a start of the program. */
const LIMIT_MS = 120_000 + KILLS * 60_000;

let dir: string;
const at = (...parts: string[]) => join(dir, ...parts);
const begin = (output: string) => [
  ...["train", "--model", at("model"), "--data", at("images"), "--output", at(output), "--steps", String(STEPS)],
  ...["--batch-size", "2", "--learning-rate", "1e-2", "--schedule", "cosine", "--ema", "0.9", "--threads", "1"],
  ...["--dropout", "0.1", "--cache-dir", at("cache"), "--checkpoint-every", "2", "--keep-checkpoints", "1"],
  ...["--validation-split", "0.4", "--validation-loss-every", "5", "--log", "tensorboard"],
  ...["--validation-prompts", "red", "--validate-every", "20"],
];
/** As a user goes on: with the options of the training, where it has got so far that it is one. */
const goOn = (output: string) =>
  existsSync(at(output, "run.json")) ? ["train", "--resume", "--output", at(output)] : begin(output);

/** Whole lines of the metrics, without what a clock says. */
function metrics(output: string): string[] {
  const file = at(output, "metrics.jsonl");
  if (!existsSync(file)) return [];
  return readFileSync(file, "utf8")
    .split("\n")
    .slice(0, -1)
    .map((line) => {
      const { seconds: _s, stepsPerSecond: _p, peakMemoryBytes: _m, ...rest } = JSON.parse(line);
      return JSON.stringify(rest);
    });
}

/** Files that are being written, under temporary names. */
const unfinished = (folder: string): string[] =>
  existsSync(folder)
    ? readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".tmp"))
    : [];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-kills-"));
  await writeTinyPipeline(at("model"));
  await writeTinyImages(at("images"));
}, LIMIT_MS);
afterAll(() => rm(dir, { recursive: true, force: true }));

/** Waits for a moment to kill at: while the program starts, while it trains, or while it writes. @returns False if it ended. */
async function moment(child: ChildProcess, output: string, generator: Generator, startMs: number): Promise<boolean> {
  const isRunning = () => child.exitCode === null && child.signalCode === null;
  const kind = generator.uniform();
  const before = metrics(output).length;
  if (kind < 0.25) {
    await sleep(generator.uniform() * startMs);
  } else if (kind < 0.6) {
    while (isRunning() && metrics(output).length <= before) await sleep(2);
    await sleep(generator.uniform() * 300);
  } else {
    // What an earlier kill has left is cleared away first.
    while (isRunning() && unfinished(at(output)).length > 0) await sleep(1);
    let writes = Math.floor(generator.uniform() * 8);
    for (let wasWriting = false; isRunning(); await sleep(0)) {
      const isWriting = unfinished(at(output)).length > 0;
      if (isWriting && !wasWriting && writes-- === 0) break;
      wasWriting = isWriting;
    }
  }
  return isRunning();
}

it(
  `killed ${KILLS} times at random moments, a training resumes to the numbers of one that was never cut off, bit for bit`,
  async () => {
    const startedAt = performance.now();
    const whole = await runFera(...begin("uncut"));
    expect(whole.stderr).not.toMatch(/^fera: /m);
    expect(whole.code).toBe(0);
    const startMs = (performance.now() - startedAt) / 2;
    const reference = metrics("uncut");
    const generator = new Generator(Number(process.env.FERA_SEED ?? 1));
    let kills = 0;
    let whileWriting = 0;
    for (let round = 0; kills < KILLS; round++) {
      const output = `cut-${round}`;
      for (let ended = false; !ended; ) {
        const child = spawn(process.execPath, ["dist/cli/main.js", ...goOn(output)], {
          stdio: ["ignore", "ignore", "pipe"],
        });
        let stderr = "";
        child.stderr.setEncoding("utf8").on("data", (text: string) => {
          stderr += text;
        });
        const exit = new Promise<number | null>((resolve) => child.on("close", (code) => resolve(code)));
        if (kills < KILLS && (await moment(child, output, generator, startMs)) && child.kill("SIGKILL")) kills++;
        const code = await exit;
        expect(stderr).not.toMatch(/^fera: /m);
        if (unfinished(at(output)).length > 0) whileWriting++;
        // Nothing that is there is wrong, or half there.
        expect(reference).toEqual(expect.arrayContaining(metrics(output)));
        const folder = at(output, "checkpoints");
        for (const name of existsSync(folder) ? readdirSync(folder) : []) {
          if (!name.endsWith(".tmp")) await readCheckpoint(join(folder, name));
        }
        if (code !== null) expect(code).toBe(0);
        ended = code === 0;
      }
      expect(metrics(output)).toEqual(reference);
      for (const name of [
        "adapter.safetensors",
        `checkpoints/checkpoint-${String(STEPS).padStart(8, "0")}.safetensors`,
      ]) {
        expect(readFileSync(at(output, name)).equals(readFileSync(at("uncut", name))), name).toBe(true);
      }
      for (const folder of ["checkpoints", "validation"]) {
        expect(readdirSync(at(output, folder), { recursive: true }).sort()).toEqual(
          readdirSync(at("uncut", folder), { recursive: true }).sort(),
        );
      }
      expect(unfinished(at(output))).toEqual([]);
      expect(readdirSync(at(output))).toContain("report.html");
      await rm(at(output), { recursive: true });
    }
    process.stderr.write(`${kills} kills, ${whileWriting} of them while a file was being written\n`);
  },
  LIMIT_MS,
);

it.each([
  ["SIGINT", 130],
  ["SIGTERM", 143],
  ["SIGHUP", 129],
] as const)("%s writes a checkpoint, from which it goes on", async (signal, code) => {
  const output = signal;
  const running = startFera(...begin(output), "--checkpoint-every", "0", "--validation-loss-every", "0");
  while (metrics(output).length < 3) await sleep(5);
  running.interrupt(signal);
  expect((await running.result).code).toBe(code);
  const done = metrics(output).length;
  const names = readdirSync(at(output, "checkpoints"));
  expect(names).toContain(`checkpoint-${String(done).padStart(8, "0")}.safetensors`);
  const resumed = await runFera(...goOn(output), "--steps", String(STEPS));
  expect(resumed.stderr).toContain(`resuming after step ${done}`);
  expect(metrics(output)).toHaveLength(STEPS);
});
