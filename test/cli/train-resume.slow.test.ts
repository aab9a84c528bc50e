// What a resumed training refuses, what it accepts, and what it survives.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { cp, mkdir, mkdtemp, readFile, rename, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readSafetensors } from "../../src/storage/index.js";
import { runFera, startFera, writeTinyImages } from "../support/fera-program.js";
import { HAS_FULL_DEVICE } from "../support/full-device.js";
import { relativeError } from "../support/relative-error.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

let dir: string;
const at = (...parts: string[]) => join(dir, ...parts);
const train = (output: string, ...more: string[]) => [
  ...["train", "--model", at("model"), "--output", at(output), "--steps", "2"],
  ...(more.includes("--data") ? [] : ["--data", at("images")]),
  ...["--batch-size", "1", "--learning-rate", "1e-2", "--checkpoint-every", "1", "--threads", "1", ...more],
];
const resume = (output: string, ...more: string[]) => runFera("train", "--resume", "--output", at(output), ...more);
const adapter = (output: string) => readFileSync(at(output, "adapter.safetensors"));
const weights = async (output: string) =>
  [...(await readSafetensors(at(output, "adapter.safetensors"))).tensors.values()].flatMap(({ data }) => [
    ...(data as Float32Array),
  ]);
const newest = (output: string) => at(output, "checkpoints/checkpoint-00000002.safetensors");

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-cli-resume-"));
  await writeTinyPipeline(at("model"));
  await writeTinyImages(at("images"));
  await writeFile(at("images/red.txt"), "a red");
  expect((await runFera(...train("begun"))).code).toBe(0);
}, 300_000);
afterAll(() => rm(dir, { recursive: true, force: true }));

/** Changes a value in a JSON file. */
async function edit(file: string, change: Record<string, unknown>): Promise<void> {
  await writeFile(file, JSON.stringify({ ...JSON.parse(await readFile(file, "utf8")), ...change }));
}

/** Changes the last weight of a file. */
async function nudge(file: string): Promise<void> {
  const bytes = await readFile(file);
  bytes[bytes.length - 2] = bytes[bytes.length - 2]! ^ 0x40;
  await writeFile(file, bytes);
}

describe("fera train --resume", () => {
  it.each<[string, RegExp, (model: string, data: string) => Promise<unknown>]>([
    [
      "other weights of the UNet",
      /the weights of unet are others\./,
      (model) => nudge(join(model, "unet/diffusion_pytorch_model.safetensors")),
    ],
    [
      "other weights of the text encoder",
      /the weights of text_encoder are others\./,
      (model) => nudge(join(model, "text_encoder/model.safetensors")),
    ],
    [
      "another noise schedule",
      /the scheduler's beta_end was 0\.012, is 0\.02\./,
      (model) => edit(join(model, "scheduler/scheduler_config.json"), { beta_end: 0.02 }),
    ],
    [
      "another scale of the latents",
      /vae's scaling_factor was 0\.8, is 0\.9\./,
      (model) => edit(join(model, "vae/config.json"), { scaling_factor: 0.9 }),
    ],
    [
      "another vocabulary",
      /the tokenizer gives other tokens\./,
      async (model) => {
        const file = join(model, "tokenizer/vocab.json");
        const { "a</w>": a, "b</w>": b } = JSON.parse(await readFile(file, "utf8"));
        await edit(file, { "a</w>": b, "b</w>": a });
      },
    ],
    [
      "another image of the same name",
      /image "blue\.png" has changed\./,
      (_, data) => cp(join(data, "red.png"), join(data, "blue.png")),
    ],
    [
      "another caption",
      /the caption of "red\.png" has changed\./,
      (_, data) => writeFile(join(data, "red.txt"), "blue"),
    ],
    ["an image more", /image "new\.png" is new\./, (_, data) => cp(join(data, "red.png"), join(data, "new.png"))],
    ["an image less", /image "blue\.png" is gone\./, (_, data) => rm(join(data, "blue.png"))],
  ])("refuses %s, by name, and leaves the training as it was", async (_, message, change) => {
    await cp(at("model"), at("other-model"), { recursive: true });
    await cp(at("images"), at("other-images"), { recursive: true });
    await change(at("other-model"), at("other-images"));
    const before = readFileSync(at("begun/run.json"), "utf8");
    const { code, stderr } = await resume("begun", "--model", at("other-model"), "--data", at("other-images"));
    for (const copy of ["other-model", "other-images"]) await rm(at(copy), { recursive: true });
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/checkpoint-00000002\.safetensors: the checkpoint is of another training: /);
    expect(stderr).toContain("Resume with what it began with, or start anew in another output folder.");
    expect(stderr).not.toContain("encoding");
    expect(code).toBe(1);
    expect(readFileSync(at("begun/run.json"), "utf8")).toBe(before);
  });

  it("accepts what changes no number, moved folders and more steps: it ends as if begun so", async () => {
    await cp(at("begun"), at("moved"), { recursive: true });
    await cp(at("model"), at("same-model"), { recursive: true });
    await edit(at("same-model/scheduler/scheduler_config.json"), { _class_name: "EulerDiscreteScheduler" });
    await cp(at("images"), at("same-images"), { recursive: true });
    const { code, stderr } = await resume(
      ...(["moved", "--model", at("same-model"), "--data", at("same-images"), "--steps", "4"] as const),
      ...["--device", "auto", "--threads", "2", "--gradient-checkpointing", "--checkpoint-every", "9"],
      ...["--validation-prompts", "red", "--validate-every", "4", "--adapter-name", "adapter.safetensors"],
    );
    expect(stderr).toContain("resuming after step 2");
    expect(stderr).toMatch(/training +4\/4 /);
    expect(code).toBe(0);
    expect(readdirSync(at("moved/validation"))).toContain("step-000004.png");
    // Another number of threads is another engine.
    expect(stderr).toMatch(/another engine: .*threads was 1, is 2\..* may differ in the last digits/);
    expect(JSON.parse(readFileSync(at("moved/run.json"), "utf8"))).toMatchObject({
      steps: 4,
      data: [at("same-images")],
    });
    expect((await runFera(...train("longer", "--steps", "4"))).code).toBe(0);
    // Another number of threads rounds otherwise.
    expect(relativeError(await weights("moved"), await weights("longer"))).toBeLessThan(1e-3);
  });

  it("refuses other steps where the learning rate depends on them, and fewer than are done", async () => {
    expect((await runFera(...train("cosine", "--schedule", "cosine"))).code).toBe(0);
    const more = await resume("cosine", "--steps", "4");
    expect(more.stderr).toMatch(/--steps was 2; got 4 \(the learning rate of every step depends on it\)/);
    expect(more.code).toBe(2);
    const fewer = await resume("begun", "--steps", "1");
    expect(fewer.stderr).toMatch(/2 steps are done; steps must be that or more; got 1/);
    expect(fewer.code).toBe(1);
  });

  it("goes back to the checkpoint before a damaged one, and says so", async () => {
    await cp(at("begun"), at("cut-off"), { recursive: true });
    await truncate(newest("cut-off"), 1000);
    const { code, stderr } = await resume("cut-off");
    expect(stderr).toMatch(/checkpoint-00000002.*truncated.*checkpoint-00000001\.safetensors is taken instead/);
    expect(stderr).toContain("resuming after step 1");
    expect(code).toBe(0);
    expect(adapter("cut-off").equals(adapter("begun"))).toBe(true);

    for (const name of readdirSync(at("cut-off/checkpoints"))) await truncate(at("cut-off/checkpoints", name), 9);
    const none = await resume("cut-off");
    expect(none.stderr).toMatch(/no checkpoint can be read, .*00000002.*00000001/);
    expect(none.code).toBe(1);
  });

  it("tells what to do about a damaged run.json, and that works", async () => {
    await cp(at("begun"), at("unsettled"), { recursive: true });
    for (const content of ["", '{"model": "x', "[]"]) {
      await writeFile(at("unsettled/run.json"), content);
      const { code, stderr } = await resume("unsettled");
      expect(stderr).toMatch(/run\.json: is damaged: .* Delete it, and give --resume together with all options/);
      expect(code).toBe(1);
    }
    await rm(at("unsettled/run.json"));
    const alone = await resume("unsettled");
    expect(alone.stderr).toMatch(/holds checkpoints, but not the training's options \(no run\.json\)\. Give them all/);
    await writeFile(at("unsettled/dataset.json"), "");
    const other = await runFera(...train("unsettled", "--resume", "--seed", "1"));
    expect(other.stderr).toContain("of another training: seed was 0, is 1.");
    const { code, stderr } = await runFera(...train("unsettled", "--resume", "--steps", "3"));
    expect(stderr).toContain("resuming after step 2");
    expect(code).toBe(0);
    expect(JSON.parse(readFileSync(at("unsettled/run.json"), "utf8"))).toMatchObject({ steps: 3 });
  });

  it.runIf(HAS_FULL_DEVICE)("goes on after a full disk, which is named with the checkpoint", async () => {
    await mkdir(at("full"));
    await symlink("/dev/full", at("full/metrics.jsonl"));
    const full = await runFera(...train("full"));
    expect(full.stderr).toMatch(/fera: step 1: .*full\/metrics\.jsonl: cannot be written: no space left/);
    expect(full.stderr).toMatch(/checkpoint-00000001\.safetensors is intact; resume/);
    expect(full.code).toBe(1);
    await rm(at("full/metrics.jsonl"));
    expect((await resume("full")).code).toBe(0);
    expect(adapter("full").equals(adapter("begun"))).toBe(true);
  });

  it("goes on after the terminal was closed", async () => {
    const running = startFera(...train("hung-up", "--steps", "1000"));
    const metrics = at("hung-up/metrics.jsonl");
    while (!existsSync(metrics) || readFileSync(metrics, "utf8") === "") await sleep(5);
    running.interrupt("SIGHUP");
    expect((await running.result).code).toBe(129);
    const [checkpoint] = readdirSync(at("hung-up/checkpoints")).slice(-1);
    const step = Number(checkpoint!.match(/\d{8}/)![0]);
    const { code, stderr } = await resume("hung-up", "--steps", String(step + 1));
    expect(stderr).toContain(`resuming after step ${step}`);
    expect(code).toBe(0);
  });
});

describe("fera train with its output in the data folder", () => {
  it("does not train on it, then or when it goes on, and evaluates on the same images", async () => {
    await cp(at("images"), at("own"), { recursive: true });
    const inside = ["--data", at("own"), "--validation-prompts", "red", "--validate-every", "1"];
    const first = await runFera(...train("own/out", ...inside, "--steps", "3"));
    expect(first.stdout).toMatch(/data +6 images/);
    expect(readdirSync(at("own/out"))).toContain("loss.png");
    const resumed = await resume("own/out", "--steps", "4");
    expect(resumed.stdout).toMatch(/data +6 images/);
    expect(resumed.code).toBe(0);
    // Another training does not learn from the pictures of the first.
    const second = await runFera(...train("own/out-2", "--data", at("own")));
    expect(second.stdout).toMatch(/data +6 images/);
    expect(second.stderr).toMatch(/out: is left out: it is the output of a training/);
    const measured = await runFera(
      ...["evaluate", "--model", at("model"), "--data", at("own"), "--split", "train", "--threads", "1"],
    );
    expect(measured.stdout).toContain("6 training images");
  });

  it("refuses the data folder itself, and takes a folder around it", async () => {
    await cp(at("images"), at("around/images"), { recursive: true });
    const same = await runFera(...train("around/images", "--data", at("around/images")));
    expect(same.stderr).toMatch(/is the data folder .*Write results to another folder/);
    expect(same.code).toBe(1);
    expect(readdirSync(at("around/images"))).not.toContain("run.json");
    const { code, stdout } = await runFera(...train("around", "--data", at("around/images")));
    expect(stdout).toMatch(/data +6 images/);
    expect(code).toBe(0);
    await rename(at("around"), at("elsewhere"));
    const moved = await resume("elsewhere", "--data", at("elsewhere/images"));
    expect(moved.stderr).toContain("resuming after step 2");
  });
});
