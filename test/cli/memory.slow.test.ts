// --memory-limit of the whole program on the embedded model: what is planned is told, kept, and refused where it cannot be.

import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { memoryBytes } from "../../src/training/index.js";
import { runFera, writeTinyImages } from "../support/fera-program.js";

const MODEL = "assets/icons";
let dir: string;
const at = (...names: string[]) => join(dir, ...names);
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-cli-memory-"));
  await writeTinyImages(at("images"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const train = (output: string, ...more: string[]) =>
  runFera(
    ...[
      "train",
      "--model",
      MODEL,
      "--data",
      at("images"),
      "--output",
      at(output),
      "--steps",
      "2",
      "--batch-size",
      "16",
    ],
    ...["--cache-dir", at("cache"), "--validation-split", "0", ...more],
  );
const metrics = (output: string): { loss: number; peakMemoryBytes: number }[] =>
  readFileSync(at(output, "metrics.jsonl"), "utf8")
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line));
const expected = (stderr: string): [name: string, bytes: number][] =>
  [...stderr.matchAll(/^ {2}(\w[\w ]*\w) {2,}([\d.]+ [MG]B)/gm)].map(([, name, size]) => [name!, memoryBytes(size!)]);

it("tells what each part takes before the start, and keeps below the limit with the same result", async () => {
  const free = await train("free");
  expect(free.code, free.stderr).toBe(0);
  expect(free.stderr).not.toMatch(/memory {4}at most/);
  const wide = await train("wide", "--memory-limit", "3GB");
  const phases = new Map(expected(wide.stderr));
  expect([...phases.keys()]).toEqual(["encoding text", "encoding images", "training step"]);
  expect(wide.stderr.indexOf("memory    at most 3.0 GB")).toBeLessThan(
    wide.stderr.indexOf("compiling the training step"),
  );
  const most = Math.max(...phases.values());
  const peak = (output: string) => Math.max(...metrics(output).map(({ peakMemoryBytes }) => peakMemoryBytes));
  expect(peak("wide")).toBeLessThan(most);
  expect(peak("wide")).toBeGreaterThan(most / 2);

  const limit = Math.floor((0.95 * phases.get("training step")!) / 1e6);
  const narrow = await train(
    "narrow",
    ...["--memory-limit", `${limit}MB`, "--validation-prompts", "red circle"],
    ...["--validation-steps", "1", "--validate-every", "2"],
  );
  expect(narrow.code, narrow.stderr).toBe(0);
  expect(narrow.stderr).toMatch(/training step .*activations recomputed/);
  expect(expected(narrow.stderr).map(([name]) => name)).toContain("decoding samples");
  expect(peak("narrow")).toBeLessThan(limit * 1e6);
  const losses = (output: string) => metrics(output).map(({ loss }) => loss);
  expect(losses("wide")).toEqual(losses("free"));
  expect(losses("narrow")).toEqual(losses("free"));
}, 400_000);

it("refuses before any work what cannot fit, and says what would", async () => {
  const { code, stderr } = await train("none", "--batch-size", "64", "--memory-limit", "700MB");
  expect(code).toBe(1);
  expect(stderr).toMatch(
    /memory limit 700 MB: a training step of 64 × 128×128 pixels.* would take .*What would fit: a batch/,
  );
  expect(stderr).not.toMatch(/encoding images/);
  const wrong = await train("none", "--memory-limit", "six");
  expect(wrong.code).toBe(2);
  expect(wrong.stderr).toMatch(/--memory-limit must be a size such as 6GB or 800MB; got "six"/);
  const tight = ["--prompt", "red circle", "--output", at("a.png"), "--memory-limit", "100MB"];
  const drawn = await runFera("generate", "--model", MODEL, ...tight);
  expect(drawn.code).toBe(1);
  expect(drawn.stderr).toMatch(/drawing 128×128 pixels would take \d+ MB\. Nothing smaller would fit either/);
});

it("draws within a limit the same image", async () => {
  const draw = (name: string, ...more: string[]) =>
    runFera(
      "generate",
      "--model",
      MODEL,
      "--prompt",
      "red circle",
      "--steps",
      "2",
      "--seed",
      "1",
      "--output",
      at(name),
      ...more,
    );
  await draw("free.png");
  const { code, stderr } = await draw("limited.png", "--memory-limit", "900MB");
  expect(code).toBe(0);
  expect(expected(stderr).map(([name]) => name)).toEqual(["text and sampling", "decoding samples"]);
  expect(readFileSync(at("limited.png"))).toEqual(readFileSync(at("free.png")));
});
