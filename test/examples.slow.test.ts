// The programs under examples/ on small pictures, for as few steps as show that everything is connected.

import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { build, preview } from "vite";
import { afterAll, beforeAll, expect, it } from "vitest";
import { readAdapter, readImage, readSafetensors } from "../src/index.js";
import { CHROMIUM, launchChromium } from "./support/chromium.js";
import { runFera, writeTinyImages } from "./support/fera-program.js";
import { readmeCommands } from "./support/readme.js";
import { relativeError } from "./support/relative-error.js";
import { writeTinyPipeline } from "./support/tiny-pipeline.js";

let dir: string;
let model: string;
let images: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-examples-"));
  model = join(dir, "model");
  images = join(dir, "images");
  await writeTinyPipeline(model);
  await writeTinyImages(images);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

it("node: trains on a folder and draws before and after", async () => {
  const output = join(dir, "node");
  const args = ["--model", model, "--data", images, "--prompt", "a red circle", "--output", output, "--steps", "3"];
  const { stdout } = await promisify(execFile)(process.execPath, ["examples/node/train-and-draw.js", ...args]);
  expect(stdout).toMatch(/^step 1 {2}loss \d\.\d{4}\n/);
  const [before, after] = await Promise.all(
    ["before", "after"].map((name) => readImage(join(output, `${name}.png`), { width: 32, height: 32 })),
  );
  expect(relativeError(after!.data, before!.data)).toBeGreaterThan(1e-4);
  const { config } = await readAdapter(join(output, "adapter.safetensors"));
  expect(config).toMatchObject({ rank: 4, numExperts: 3 });
});

it("comfyui: the commands of its README write a plain LoRA under kohya's names", async () => {
  const commands = readmeCommands("examples/comfyui/README.md");
  expect(commands.map(([command]) => command)).toEqual(["train", "convert"]);
  for (const command of commands) {
    const args = command.map((part) =>
      part
        .replace("./stable-diffusion-v1-5", model)
        .replace("./my-images", images)
        .replace(/^(runs\/mine|my-style)/, `${dir}/$1`),
    );
    const { code, stderr } = await runFera(...args, ...(args[0] === "train" ? ["--steps", "2"] : ["--timesteps", "2"]));
    expect(code, stderr).toBe(0);
  }
  const { tensors } = await readSafetensors(join(dir, "my-style.safetensors"));
  const names = [...tensors.keys()];
  expect(names.length).toBeGreaterThan(0);
  for (const name of names) expect(name).toMatch(/^lora_unet_\w+_attn[12]_\w+\.(alpha|lora_(down|up)\.weight)$/);
  for (const name of names.filter((each) => each.endsWith(".alpha"))) {
    const [down, up] = ["down", "up"].map((part) => tensors.get(name.replace("alpha", `lora_${part}.weight`))!.shape);
    expect(up![1]).toBe(down![0]);
  }
});

it.skipIf(!CHROMIUM)(
  "browser: the page trains on a chosen picture and offers the adapter",
  { timeout: 240_000 },
  async () => {
    const root = "examples/browser";
    const outDir = join(dir, "web");
    await build({
      root,
      configFile: `${root}/vite.config.ts`,
      logLevel: "error",
      build: { outDir, emptyOutDir: true },
    });
    const server = await preview({
      root,
      configFile: `${root}/vite.config.ts`,
      logLevel: "warn",
      build: { outDir },
      preview: { host: "127.0.0.1", port: 0 },
    });
    const browser = await launchChromium();
    try {
      const page = await browser.newPage();
      await page.goto(server.resolvedUrls!.local[0]!);
      await page.setInputFiles("#pictures", join(images, "red.png"));
      await page.fill("#caption", "red");
      await page.fill("#steps", "2");
      await page.click("button");
      await page.waitForFunction(
        () => /^(Done|Failed)/.test(document.getElementById("status")!.textContent!),
        undefined,
        {
          timeout: 200_000,
        },
      );
      expect(await page.textContent("#status")).toBe("Done.");
      const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download a")]);
      const { config, state } = await readAdapter(new Uint8Array(await readFile(await download.path())));
      expect(config).toMatchObject({ rank: 4, numExperts: 3 });
      // An untrained adapter changes nothing: its "up" matrices are zeros.
      const [, up] = [...state].find(([name]) => name.endsWith(".up") || name.includes("lora_up"))!;
      expect(up.data.some((value) => value !== 0)).toBe(true);
      const pixels = (id: string) =>
        page.evaluate((name) => (document.getElementById(name) as HTMLCanvasElement).toDataURL(), id);
      expect((await pixels("after")).length).toBeGreaterThan(1000);
      expect(await pixels("after")).not.toBe(await pixels("before"));
    } finally {
      await browser.close();
      await server.close();
    }
  },
);
