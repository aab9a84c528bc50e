// A second training in a folder: resumed, replacing the first, or at the same time.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { runFera, startFera, writeTinyImages } from "../support/fera-program.js";
import { HubServer } from "../support/hub-server.js";

const MODEL = "test/reference/pipeline-tiny";

let dir: string;
let data: string;
const at = (...parts: string[]) => join(dir, ...parts);
const train = (output: string, ...more: string[]) => [
  ...["train", "--model", MODEL, "--data", data, "--output", at(output)],
  ...["--steps", "2", "--batch-size", "1", "--threads", "1", ...more],
];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-cli-again-"));
  data = at("images");
  await writeTinyImages(data);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe("fera train", () => {
  it("leaves a folder alone in which another training is at work", async () => {
    const first = startFera(...train("shared", "--steps", "100000"));
    while (!existsSync(at("shared/.training.lock"))) await sleep(5);
    const second = await runFera(...train("shared"));
    first.interrupt();
    expect(second.stderr).toMatch(/shared: another training is at work there\. .*choose another --output/);
    expect(second.code).toBe(1);
    expect((await first.result).code).toBe(130);
    expect(existsSync(at("shared/.training.lock"))).toBe(false);
  }, 300_000);

  it("--overwrite keeps the first training until the second is ready, and then all that is not a training's", async () => {
    expect((await runFera(...train("twice", "--adapter-name", "own"))).code).toBe(0);
    await writeFile(at("twice/own/notes.txt"), "mine");
    await mkdir(at("twice/validation"));
    await writeFile(at("twice/validation/photo.png"), "mine");
    const adapter = readFileSync(at("twice/own/adapter_model.safetensors"));

    const again = train("twice", "--adapter-name", "own", "--overwrite", "--seed", "1");
    expect((await runFera(...again, "--target-modules", "to_x")).code).toBe(1);
    expect(readFileSync(at("twice/own/adapter_model.safetensors")).equals(adapter)).toBe(true);
    expect(readdirSync(at("twice/checkpoints"))).toHaveLength(1);

    expect((await runFera(...again)).code).toBe(0);
    expect(readFileSync(at("twice/own/adapter_model.safetensors")).equals(adapter)).toBe(false);
    expect(readFileSync(at("twice/own/notes.txt"), "utf8")).toBe("mine");
    expect(readdirSync(at("twice/validation"))).toEqual(["photo.png"]);
  }, 300_000);

  it("--resume says so where there is nothing to go on with, needs no metrics where there is; the demo takes no such folder", async () => {
    const nothing = await runFera("train", "--resume", "--output", at("nothing"));
    expect(nothing.stderr).toMatch(/--resume: .*nothing holds no training that could go on \(no run\.json\)/);
    expect(nothing.code).toBe(2);

    expect((await runFera(...train("finished"))).code).toBe(0);
    const demo = await runFera("demo", "--output", at("finished"));
    expect(demo.stderr).toMatch(/finished: holds a training of fera train .*run\.json/);
    expect(demo.code).toBe(1);

    await rm(at("finished/metrics.jsonl"));
    const { code, stdout, stderr } = await runFera("train", "--resume", "--output", at("finished"));
    expect(stderr).not.toContain("unexpected");
    expect(stdout).toMatch(/^adapter /m);
    expect(code).toBe(0);
  }, 300_000);

  it("goes on with a model that was named by its hub id", async () => {
    const files: Record<string, Uint8Array> = {};
    for (const entry of await readdir(MODEL, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name);
      if (entry.isFile()) files[path.slice(MODEL.length + 1).replaceAll("\\", "/")] = await readFile(path);
    }
    const server = new HubServer({ "someone/tiny": { commit: "c".repeat(40), revisions: ["main"], files } });
    await server.start();
    vi.stubEnv("HF_ENDPOINT", server.address);
    vi.stubEnv("HF_HOME", at("hub"));
    vi.stubEnv("HF_HUB_CACHE", "");
    vi.stubEnv("HF_HUB_OFFLINE", "");
    try {
      expect((await runFera(...train("hub-run", "--model", "someone/tiny"))).code).toBe(0);
      const settings = JSON.parse(readFileSync(at("hub-run/run.json"), "utf8"));
      expect(settings).toMatchObject({ model: "someone/tiny", data: [data] });
      const resumed = await runFera("train", "--resume", "--output", at("hub-run"));
      expect(resumed.stderr).toContain("resuming after step 2");
      expect(resumed.code).toBe(0);
    } finally {
      vi.unstubAllEnvs();
      await server.stop();
    }
  }, 300_000);

  it.each(["checkpoints", "metrics.jsonl", "Validation"])("refuses %s as the adapter's name", async (name) => {
    const { code, stderr } = await runFera(...train("named", "--adapter-name", name));
    expect(stderr).toContain(`--adapter-name must not be the name of another file of the training; got "${name}"`);
    expect(code).toBe(2);
  });
});
