import { existsSync, readdirSync, readFileSync } from "node:fs";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readSafetensors } from "../../src/storage/index.js";
import { runFera, startFera, writeTinyImages } from "../support/fera-program.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

const STEPS = 16;

let dir: string;
let model: string;
let data: string;
const train = (output: string, ...more: string[]) => [
  ...["train", "--model", model, "--output", join(dir, output)],
  ...(more.includes("--data") ? [] : ["--data", data]),
  ...["--steps", String(STEPS), "--batch-size", "2", "--learning-rate", "1e-3", "--threads", "1", ...more],
];
const metrics = (output: string): { step: number; loss: number }[] =>
  readFileSync(join(dir, output, "metrics.jsonl"), "utf8")
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line));
const checkpoints = (output: string) => readdirSync(join(dir, output, "checkpoints")).sort();

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-cli-train-"));
  model = join(dir, "model");
  data = join(dir, "images");
  await writeTinyPipeline(model);
  await writeTinyImages(data);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe("fera train", () => {
  it("writes adapter, metrics, checkpoints, validation images and the loss curve, and says what to do next", async () => {
    await writeFile(join(data, "broken.png"), "no image");
    const { code, stdout, stderr } = await runFera(
      ...train("whole", "--validation-prompts", "a red circle", "--validation-prompts", "blue"),
      ...["--validate-every", "8", "--checkpoint-every", "5", "--dropout", "0.1", "--rank", "2"],
    );
    await rm(join(data, "broken.png"));
    expect(stderr).toMatch(/skipped +1 file:\n {2}broken\.png: is no readable image/);
    expect(code).toBe(0);
    expect(stdout).toMatch(/data +6 images of .* 32 pixels/);
    expect(stderr).toMatch(/training +1\/16 +loss \d\.\d{4}/);
    expect(stderr).toMatch(/training +16\/16 /);
    expect(metrics("whole").map(({ step }) => step)).toEqual(Array.from({ length: STEPS }, (_, i) => i + 1));
    expect(checkpoints("whole")).toEqual(["checkpoint-00000015.safetensors", "checkpoint-00000016.safetensors"]);
    const validation = readdirSync(join(dir, "whole/validation"));
    const [blue, circle, ...steps] = validation.filter((name) => name.endsWith(".png"));
    expect([blue, circle].every((name) => /^prompt-[0-9a-f]{8}\.png$/.test(name!))).toBe(true);
    expect(steps).toEqual(["step-000008.png", "step-000016.png"]);
    expect(readdirSync(join(dir, "whole/validation", blue!.replace(".png", "")))).toEqual([
      ...["prompt.json", "step-000008.json", "step-000008.png", "step-000016.json", "step-000016.png", "without.png"],
    ]);
    expect(readFileSync(join(dir, "whole/loss.png")).subarray(1, 4).toString()).toBe("PNG");
    expect(readFileSync(join(dir, "whole/report.html"), "utf8")).toContain("<figcaption>a red circle</figcaption>");
    expect(stderr.split("\n")[0]).toBe(`loading   ${model}`);
    expect(JSON.parse(readFileSync(join(dir, "whole/run.json"), "utf8")).fera).toMatch(/^\d+\.\d+\.\d+/);
    const adapter = join(dir, "whole/adapter.safetensors");
    const { metadata } = await readSafetensors(adapter);
    expect(JSON.parse(metadata.fera_config!)).toMatchObject({ rank: 2, dropout: 0.1, num_experts: 3 });
    expect(stdout).toContain(`npx fera generate --model ${model} --adapter ${adapter} --prompt`);
  });

  it("interrupted by Ctrl-C leaves a checkpoint and exit code 130; resumed, it has the losses of a run never cut", async () => {
    // One that is never cut, and one that is cut as soon as its third step is logged.
    const whole = runFera(...train("uncut", "--schedule", "cosine", "--ema", "0.9"));
    const running = startFera(...train("cut", "--schedule", "cosine", "--ema", "0.9"));
    const watch = setInterval(() => {
      if (existsSync(join(dir, "cut/metrics.jsonl")) && metrics("cut").length >= 3) {
        running.interrupt();
        clearInterval(watch);
      }
    }, 5);
    const cut = await running.result.finally(() => clearInterval(watch));
    expect(cut.stderr).toContain("Stopping after this step. Press Ctrl-C again");
    expect(cut.code).toBe(130);
    expect(cut.stdout).toContain(`To go on: npx fera train --resume --output ${join(dir, "cut")}`);
    const done = metrics("cut").length;
    expect(done).toBeGreaterThanOrEqual(3);
    expect(done).toBeLessThan(STEPS);
    expect(checkpoints("cut")).toEqual([`checkpoint-${String(done).padStart(8, "0")}.safetensors`]);
    expect((await whole).code).toBe(0);

    // Other settings would be another training.
    const other = await runFera("train", "--resume", "--output", join(dir, "cut"), "--rank", "8");
    expect(other.code).toBe(2);
    expect(other.stderr).toContain("--rank was 4; got 8");

    const resumed = await runFera("train", "--resume", "--output", join(dir, "cut"));
    expect(resumed.stderr).toContain(`resuming after step ${done}`);
    expect(resumed.code).toBe(0);
    const losses = (output: string) => metrics(output).map(({ step, loss }) => [step, loss]);
    expect(losses("cut")).toEqual(losses("uncut"));
    const adapter = (output: string) => readFileSync(join(dir, output, "adapter.safetensors"));
    expect(adapter("cut").equals(adapter("uncut"))).toBe(true);

    const again = await runFera(...train("cut"));
    expect(again.code).toBe(1);
    expect(again.stderr).toMatch(/already holds a training.*--resume.*--overwrite/);
  }, 300_000);

  it("with --gradient-checkpointing trains the very same adapter", async () => {
    const adapters = [];
    for (const [output, ...more] of [["kept"], ["recomputed", "--gradient-checkpointing"]] as [string, ...string[]][]) {
      expect((await runFera(...train(output, "--steps", "3", ...more))).code).toBe(0);
      adapters.push(readFileSync(join(dir, output, "adapter.safetensors")));
    }
    expect(adapters[1]!.equals(adapters[0]!)).toBe(true);
  });

  it("trains SDXL, whose adapter then measures and draws", async () => {
    const xl = ["--model", "test/reference/pipeline-tiny-xl"];
    const output = join(dir, "xl");
    const trained = await runFera(
      ...["train", ...xl, "--data", data, "--output", output, "--steps", "6", "--batch-size", "2"],
      ...["--learning-rate", "1e-2", "--caption-dropout", "0.5", "--threads", "1"],
      ...["--validation-prompts", "red", "--validate-every", "6"],
    );
    expect(trained.stderr).not.toContain("error");
    expect(trained.code).toBe(0);
    expect(metrics("xl")).toHaveLength(6);
    expect(readdirSync(join(output, "validation"))).toContain("step-000006.png");
    const adapter = ["--adapter", join(output, "adapter.safetensors")];
    const measured = await runFera("evaluate", ...xl, ...adapter, "--data", data, "--split", "all");
    expect(measured.code).toBe(0);
    const [base, adapted] = [/base +([\d.]+)/, /adapted +([\d.]+)/].map((row) =>
      Number(measured.stdout.match(row)![1]),
    );
    expect(adapted).toBeLessThan(base!);
    const drawn = await runFera(
      ...["generate", ...xl, ...adapter, "--prompt", "red", "--steps", "1", "--output", join(output, "red.png")],
    );
    expect(drawn.code).toBe(0);
  });

  it("warns where it trains on file names, takes an instance prompt, and suggests a prompt that says something", async () => {
    const numbered = join(dir, "numbered");
    await mkdir(numbered);
    for (const [i, name] of ["red", "blue"].entries()) await cp(join(data, `${name}.png`), join(numbered, `0${i}.png`));
    const run = (output: string, ...more: string[]) =>
      runFera(...train(output, "--data", numbered, "--steps", "1", ...more));
    const without = await run("numbered-names");
    expect(without.stderr).toMatch(/warning +2 images without a caption: trained on their file names, such as "00"/);
    expect(without.stderr).toContain("--instance-prompt");
    expect(without.stdout).toContain("captions  2 from file names");
    expect(without.stdout).toMatch(/fera generate .* --prompt PROMPT --output/);
    const given = await run("numbered-prompt", "--instance-prompt", "a circle");
    expect(given.stderr).not.toContain("warning");
    expect(given.stdout).toContain("captions  2 the instance prompt");
    expect(given.stdout).toMatch(/fera generate .* --prompt ["']a circle["'] --output/);
    expect(given.stdout).toMatch(/fera evaluate .* --instance-prompt ["']a circle["']/);
  });

  it("takes options from a file, flags first, and refuses keys and values by name", async () => {
    const config = join(dir, "config.json");
    await writeFile(config, JSON.stringify({ num_bands: 3, speed: 9, steps: 1.5, sigmaRule: "latent" }));
    const refused = await runFera("train", "--config", config, "--data", data, "--output", join(dir, "x"));
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain("--model is required");
    expect(refused.stderr).toContain('unknown key "num_bands"; write numBands');
    expect(refused.stderr).toContain('unknown key "speed"; known are model, ');
    expect(refused.stderr).toContain(`${config}: "steps" must be an integer of 1 or more; got 1.5`);
    expect(refused.stderr).toContain("Usage: fera train --model MODEL");

    const options = { model, data, steps: 9, batchSize: 1, rank: 1, targetModules: ["to_q"], adapterName: "own.pt" };
    await writeFile(config, JSON.stringify(options));
    const { code, stderr } = await runFera(
      ...["train", "--config", config, "--output", join(dir, "configured"), "--steps", "2", "--threads", "1"],
    );
    expect(stderr).toMatch(/training +2\/2 /);
    expect(code).toBe(0);
    expect(existsSync(join(dir, "configured/own.pt"))).toBe(true);
  });

  it.each([
    [
      "a resolution that does not fit the model",
      ["--resolution", "30"],
      /--resolution must be a multiple of 4.*got 30/,
    ],
    ["a validation prompt that is too long", ["--validation-prompts", "a b c d e f g h"], /"g h" does not fit/],
    ["a caption that is too long", ["--data", "LONG"], /red\.png "a b c d e f g h": "g h" does not fit/],
    ["a data folder without images", ["--data", "EMPTY"], /empty: holds no image that can be used/],
    ["a data folder that is missing", ["--data", "nowhere"], /nowhere: no such folder/],
    ["an icon style that is unknown", ["--data", "icons:crayon"], /crayon/],
    ["a model folder that is missing", ["--model", "nowhere"], /nowhere: there is no such folder/],
    ["an output folder that cannot be written", ["--output", "FILE"], /output folder .*: cannot be written/],
    ["a layer that the model does not have", ["--target-modules", "to_x"], /to_x/],
  ])("fails with exit code 1 for %s", async (_, flags, message) => {
    const empty = join(dir, "empty");
    await mkdir(empty, { recursive: true });
    const long = join(dir, "long");
    await writeTinyImages(long);
    await writeFile(join(long, "red.txt"), "a b c d e f g h");
    const places: Record<string, string> = { EMPTY: empty, LONG: long, FILE: join(model, "model_index.json", "x") };
    const { code, stderr } = await runFera(...train("refused", ...flags.map((flag) => places[flag] ?? flag)));
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/Usage|\n {4}at /);
    expect(code).toBe(1);
    // Nothing is left that the next attempt would have to replace.
    expect(existsSync(join(dir, "refused/run.json"))).toBe(false);
  });
});
