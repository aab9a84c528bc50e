// Trainings that Open MPI or MPICH starts on several ranks of this machine: the same numbers as one rank, and every fault
// ends all of them, with its reason. Where Open MPI is not installed, they are skipped.

import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readSafetensors } from "../../src/storage/index.js";
import { readMetrics } from "../../src/training/index.js";
import { runFera, writeTinyImages } from "../support/fera-program.js";
import {
  isInstalled,
  isRunning,
  type RunningRanks,
  runRanks,
  startRanks,
  WITHOUT_MPI,
} from "../support/mpi-program.js";
import { relativeError } from "../support/relative-error.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

/** Of 20 steps, by rounding. */
const TOLERANCE = 1e-6;
const PROGRAM = "dist/cli/main.js";
const HAS_MPI = isInstalled("Open MPI");
const HAS_MPICH = isInstalled("MPICH");

let dir: string;
const at = (...parts: string[]) => join(dir, ...parts);

const training = (output: string, ...more: string[]) => [
  ...["train", "--model", at("model"), "--data", at("images"), "--output", at(output), "--cache-dir", at("cache")],
  ...["--batch-size", "6", "--learning-rate", "1e-3", "--rank", "2", "--threads", "1", ...more],
];
const distributed = (...args: string[]) => [PROGRAM, ...args, "--distributed", "mpi"];

/** All trained values, in the order of the file. */
async function weightsOf(output: string): Promise<Float32Array> {
  const { tensors } = await readSafetensors(at(output, "adapter.safetensors"));
  return Float32Array.from([...tensors.values()].flatMap(({ data }) => [...(data as Float32Array)]));
}
const bytesOf = (output: string) => readFileSync(at(output, "adapter.safetensors"));
const metricsOf = (output: string) => readMetrics(at(output, "metrics.jsonl"));

/** Waits until a training has done that many steps. */
async function untilStep(output: string, step: number, { output: printed }: RunningRanks): Promise<void> {
  for (let tries = 0; tries < 1200; tries++) {
    const path = at(output, "metrics.jsonl");
    if (existsSync(path) && readFileSync(path, "utf8").split("\n").length > step) return;
    await sleep(50);
  }
  throw new Error(`no step ${step} within a minute:\n${printed()}`);
}

const checkpointsOf = (output: string) => readdirSync(at(output, "checkpoints"));

/** Every checkpoint can be read, and nothing half-written lies beside them. */
async function expectIntact(output: string): Promise<void> {
  const names = checkpointsOf(output);
  expect(names.length).toBeGreaterThan(0);
  for (const name of names) {
    expect(name).toMatch(/^checkpoint-\d{8}\.safetensors$/);
    await readSafetensors(at(output, "checkpoints", name));
  }
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-ranks-"));
  await writeTinyPipeline(at("model"));
  await writeTinyImages(at("images"));
}, 300_000);
afterAll(() => rm(dir, { recursive: true, force: true }));

describe.skipIf(!HAS_MPI)(HAS_MPI ? "ranks" : `ranks: ${WITHOUT_MPI}`, () => {
  const cases: [string, string[]][] = [
    ["FeRA with dropout and an average", ["--dropout", "0.1", "--ema", "0.9"]],
    [
      "LoRA with accumulated gradients, clipping and a validation loss",
      [
        ...[
          "--adapter",
          "lora",
          "--gradient-accumulation",
          "2",
          "--max-gradient-norm",
          "0.5",
          "--caption-dropout",
          "0.3",
        ],
        ...["--validation-split", "0.34", "--validation-loss-every", "10", "--batch-size", "6"],
      ],
    ],
    [
      "buckets, every noise option and text encoders",
      [
        ...[
          "--adapter",
          "lora",
          "--bucket",
          "--bucket-step",
          "8",
          "--flip",
          "--train-text-encoder",
          "--noise-offset",
          "0.1",
        ],
        ...["--multires-noise-iterations", "3", "--input-perturbation", "0.1", "--timestep-sampling", "stratified"],
      ],
    ],
  ];
  it.each(cases)("train %s to the numbers of one rank, and to the same bits again", async (_, options) => {
    const args = (output: string) => training(output, "--steps", "20", ...options, "--overwrite");
    const one = await runFera(...args("one"));
    expect(one.code, one.stderr).toBe(0);
    const [weights, metrics] = [await weightsOf("one"), await metricsOf("one")];
    for (const count of [2, 3]) {
      const result = await runRanks(count, distributed(...args("several")));
      expect(result.code, result.output).toBe(0);
      expect(relativeError(await weightsOf("several"), weights)).toBeLessThan(TOLERANCE);
      for (const [i, line] of (await metricsOf("several")).entries()) {
        const expected = metrics[i]!;
        expect(line.step).toBe(expected.step);
        expect(line.timesteps).toEqual(expected.timesteps);
        if (expected.loss !== undefined) expect(Math.abs(line.loss! / expected.loss - 1)).toBeLessThan(TOLERANCE);
        if (expected.validation) {
          expect(Math.abs(line.validation!.loss / expected.validation.loss - 1)).toBeLessThan(TOLERANCE);
        }
      }
      if (count === 3) continue;
      const bytes = bytesOf("several");
      expect((await runRanks(count, distributed(...args("several")))).code).toBe(0);
      expect(bytesOf("several").equals(bytes)).toBe(true);
    }
  });

  it("go on in another number, which they say, with the same images, noise and timesteps", async () => {
    const options = ["--adapter", "lora", "--dropout", "0.1"];
    expect((await runFera(...training("uncut", "--steps", "20", ...options))).code).toBe(0);
    expect((await runRanks(2, distributed(...training("cut", "--steps", "8", ...options)))).code).toBe(0);
    const resumed = ["train", "--resume", "--output", at("cut")];
    const second = await runRanks(3, distributed(...resumed, "--steps", "14"));
    expect(second.code, second.output).toBe(0);
    expect(second.output).toMatch(/made by another engine: ranks was 2, is 3\./);
    const third = await runFera(...resumed, "--steps", "20");
    expect(third.stderr).toMatch(/ranks was 3, is 1\./);
    expect(relativeError(await weightsOf("cut"), await weightsOf("uncut"))).toBeLessThan(TOLERANCE);
    const [cut, uncut] = [await metricsOf("cut"), await metricsOf("uncut")];
    expect(cut.map(({ timesteps }) => timesteps)).toEqual(uncut.map(({ timesteps }) => timesteps));
  });

  it.runIf(HAS_MPICH)("train with MPICH's library, too", async () => {
    const args = (output: string) => training(output, "--steps", "10", "--adapter", "lora");
    const result = await runRanks(2, distributed(...args("mpich")), { launcher: "MPICH" });
    expect(result.code, result.output).toBe(0);
    expect(result.output).toMatch(/ranks +2 on 1 host\(s\) \(MPICH/);
    expect((await runFera(...args("plain"))).code).toBe(0);
    expect(relativeError(await weightsOf("mpich"), await weightsOf("plain"))).toBeLessThan(TOLERANCE);
  });
});

describe.skipIf(!HAS_MPI)("a fault ends all ranks, with its reason:", () => {
  const endless = (output: string, ...more: string[]) =>
    distributed(...training(output, "--adapter", "lora", "--steps", "1000000", "--checkpoint-every", "5", ...more));

  /** Ends a training of two ranks after a few steps. @returns What was printed, and after how many seconds all had ended. */
  async function after(
    output: string,
    args: readonly string[],
    fault: (ranks: RunningRanks) => void,
  ): Promise<{ printed: string; code: number | null; seconds: number }> {
    const ranks = startRanks(2, args);
    await untilStep(output, 12, ranks);
    const began = performance.now();
    const pids = ranks.pids();
    expect(pids).toHaveLength(2);
    fault(ranks);
    const { code, output: printed } = await ranks.result;
    const seconds = (performance.now() - began) / 1000;
    for (let tries = 0; tries < 50 && pids.some(isRunning); tries++) await sleep(100);
    expect(pids.filter(isRunning)).toEqual([]);
    return { printed, code, seconds };
  }

  it("a rank that is killed", async () => {
    const { printed, code, seconds } = await after("killed", endless("killed"), (ranks) =>
      process.kill(ranks.pids()[1]!, "SIGKILL"),
    );
    expect(code).not.toBe(0);
    expect(printed).toMatch(/rank 1 .*exited on signal 9/);
    expect(seconds).toBeLessThan(20);
    await expectIntact("killed");
  });

  it("a rank that hangs", async () => {
    const args = endless("hung", "--distributed-timeout", "3");
    const { printed, code, seconds } = await after("hung", args, (ranks) => process.kill(ranks.pids()[1]!, "SIGSTOP"));
    expect(code).not.toBe(0);
    expect(printed).toMatch(/rank 1 of 2 \(host .*\) has given no sign for 3 s: it hangs/);
    expect(seconds).toBeLessThan(30);
    await expectIntact("hung");
  });

  it("no room for what rank 0 writes", async () => {
    const { printed, code, seconds } = await after("full", endless("full"), () => {
      // What cannot be written to, whoever tries: a folder in the file's place.
      const path = at("full", "metrics.jsonl");
      for (let isFile = true; isFile; isFile = !statSync(path).isDirectory()) {
        rmSync(path, { force: true });
        try {
          mkdirSync(path);
        } catch {
          // The training was faster, and has made the file again.
        }
      }
    });
    expect(code).not.toBe(0);
    expect(printed).toMatch(/rank 0 of 2 \(host .*\) fails; all ranks end:\n.*metrics\.jsonl: cannot be written/);
    expect(seconds).toBeLessThan(20);
    await expectIntact("full");
  });

  it("SIGTERM to the launcher, with a checkpoint of the step", async () => {
    const { printed, seconds } = await after("ended", endless("ended"), (ranks) => {
      ranks.launcher.kill("SIGTERM");
    });
    // Open MPI gives a second, which is enough for the last step that was done.
    const step = Number(/checkpoint-(\d+)/.exec(checkpointsOf("ended").sort().at(-1)!)![1]);
    expect(step, printed).toBeGreaterThan(11);
    expect(step).toBeGreaterThanOrEqual((await metricsOf("ended")).at(-1)!.step - 1);
    await expectIntact("ended");
    expect(seconds).toBeLessThan(20);
    const steps = ["--steps", String(step + 3)];
    const resumed = await runRanks(2, distributed("train", "--resume", "--output", at("ended"), ...steps));
    expect(resumed.code, resumed.output).toBe(0);
  });

  /** Runs two ranks, of which rank 1 has further arguments. */
  const differing = (output: string, ...more: string[]) =>
    runRanks(2, distributed(...training(output, "--adapter", "lora", "--steps", "4")), {
      around: [
        "sh",
        "-c",
        `if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then exec "$@" ${more.join(" ")}; else exec "$@"; fi`,
        "sh",
      ],
    });

  it.each<[string, () => Promise<string[]>, RegExp]>([
    ["another option", async () => ["--seed", "5"], /rank 1 of 2 \(host .*\): seed was 0, is 5/],
    [
      "an option that changes no number",
      async () => ["--checkpoint-every", "2"],
      /rank 1 of 2 \(host .*\): checkpointEvery was 250, is 2/,
    ],
    [
      "other data",
      async () => {
        await cp(at("images"), at("others"), { recursive: true });
        await writeFile(at("others", "red.txt"), "a blue");
        return ["--data", at("others")];
      },
      /rank 1 of 2/,
    ],
    [
      "another model file",
      async () => {
        await cp(at("model"), at("other-model"), { recursive: true });
        const weights = at("other-model", "unet/diffusion_pytorch_model.safetensors");
        const bytes = readFileSync(weights);
        bytes[bytes.length - 2]! ^= 0x40;
        await writeFile(weights, bytes);
        return ["--model", at("other-model")];
      },
      /rank 1 of 2 \(host .*\): the weights of unet are others/,
    ],
  ])("%s on one rank, before the first step", async (name, given, message) => {
    const output = `differs-${name.replaceAll(" ", "-")}`;
    const result = await differing(output, ...(await given()));
    expect(result.code).not.toBe(0);
    expect(result.output).toMatch(message);
    expect(existsSync(at(output, "metrics.jsonl"))).toBe(false);
  });

  it("a batch that cannot be divided", async () => {
    const result = await runRanks(2, distributed(...training("odd", "--steps", "2", "--batch-size", "3")));
    expect(result.code).not.toBe(0);
    expect(result.output).toMatch(/must be a multiple of their number, 2; got 3\. Take 4/);
  });
});

describe.skipIf(!HAS_MPI)("without what MPI needs, a training says what to do:", () => {
  it("a library that is not there", async () => {
    process.env.FERA_MPI_LIBRARY = "libnone.so.9";
    try {
      const result = await runFera(...training("nothing", "--distributed", "mpi"));
      expect(result.code).toBe(1);
      expect(result.stderr).toMatch(/FERA_MPI_LIBRARY: "libnone\.so\.9" cannot be loaded/);
    } finally {
      delete process.env.FERA_MPI_LIBRARY;
    }
  });

  it.runIf(HAS_MPICH)("a launcher of another MPI", async () => {
    const args = distributed(...training("mixed", "--steps", "1"));
    const result = await runRanks(2, args, { environment: { FERA_MPI_LIBRARY: "libmpich.so.12" } });
    expect(result.code).not.toBe(0);
    expect(result.output).toMatch(/mpirun started 2 processes, but MPICH 4[^ ]* sees 1/);
  });

  it("one rank alone, which says how to start several", async () => {
    const result = await runFera(...training("alone", "--steps", "2", "--distributed", "mpi"));
    expect(result.code, result.stderr).toBe(0);
    expect(result.stderr).toMatch(/ranks +1: start several with mpirun/);
  });
});
