import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { HubServer } from "../../test/support/hub-server.js";
import { SD1_LAYOUT, singleFileOf } from "../../test/support/single-file.js";
import { writeSafetensors } from "../storage/index.js";
import "../storage/node.js";
import "../runtime/node.js";
import { DDIMScheduler, PNDMScheduler } from "../schedulers/index.js";
import { StableDiffusionPipeline } from "./stable-diffusion/stable-diffusion-pipeline.js";

const TINY = "test/reference/pipeline-tiny";
const ID = "someone/tiny";

let server: HubServer;
let home: string;

beforeEach(async () => {
  const files: Record<string, Uint8Array> = { "README.md": new Uint8Array(3), "v1.ckpt": new Uint8Array(5000) };
  for (const entry of await readdir(TINY, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile()) files[path.slice(TINY.length + 1).replaceAll("\\", "/")] = await readFile(path);
  }
  server = new HubServer({ [ID]: { commit: "c".repeat(40), revisions: ["main"], files } });
  await server.start();
  home = await mkdtemp(join(tmpdir(), "fera-hub-pipeline-"));
  vi.stubEnv("HF_ENDPOINT", server.address);
  vi.stubEnv("HF_HOME", home);
  vi.stubEnv("HF_HUB_CACHE", "");
  vi.stubEnv("HF_HUB_OFFLINE", "");
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await server.stop();
  await rm(home, { recursive: true, force: true });
});

it("a pipeline named by its hub id is fetched once, and makes what its folder makes", async () => {
  const options = { token: false } as const;
  const pipeline = await StableDiffusionPipeline.fromPretrained(ID, options);
  expect(server.fetched).not.toContain("README.md");
  expect(server.fetched).not.toContain("v1.ckpt");
  expect(new Set(server.fetched).size).toBe(server.fetched.length);
  expect(server.requests.filter(({ url }) => url.startsWith("/api/models"))).toHaveLength(2);
  const folder = await StableDiffusionPipeline.fromPretrained(TINY);
  const [fetched, local] = await Promise.all(
    [pipeline, folder].map((each) => each.generate({ prompt: "a circle", steps: 2, seed: 5 })),
  );
  expect(fetched!.latents.data).toEqual(local!.latents.data);
  await Promise.all([pipeline.release(), folder.release()]);
});

it("a hub id may be marked as one, as in a browser", async () => {
  const scheduler = await DDIMScheduler.fromPretrained(`hf://${ID}`, { subfolder: "scheduler", token: false });
  expect(scheduler.config).toMatchObject({ beta_schedule: "scaled_linear" });
});

it("a single file takes its configuration and tokenizer from the hub, without the weights there", async () => {
  const file = join(home, "model.safetensors");
  await writeSafetensors(file, await singleFileOf(TINY, SD1_LAYOUT));
  const pipeline = await StableDiffusionPipeline.fromSingleFile(file, { config: ID, token: false });
  expect(pipeline.unet.weights.weights.size).toBeGreaterThan(100);
  expect(server.fetched.filter((path) => /safetensors|ckpt/.test(path))).toEqual([]);
});

it("a scheduler reads its configuration from a folder, a pipeline's folder or the hub, another scheduler's too", async () => {
  const own = await DDIMScheduler.fromPretrained(`${TINY}/scheduler`);
  expect(own).toBeInstanceOf(DDIMScheduler);
  expect(own.config).toMatchObject({ beta_schedule: "scaled_linear", clip_sample: false });
  const fetched = await PNDMScheduler.fromPretrained(ID, { subfolder: "scheduler", token: false }).catch((e) => e);
  // The file is DDIM's and says nothing of skip_prk_steps.
  expect(fetched.message).toMatch(/^PNDMScheduler: skip_prk_steps=false/);
  expect((await DDIMScheduler.fromPretrained(ID, { subfolder: "scheduler", token: false })).config).toEqual(own.config);
  await expect(DDIMScheduler.fromPretrained(TINY)).rejects.toThrow(
    /pipeline-tiny: has no scheduler_config\.json; it holds .*give \{ subfolder: "scheduler" \}/,
  );
  await expect(DDIMScheduler.fromPretrained(`${TINY}/model_index.json`)).rejects.toThrow(/is a file/);
});
