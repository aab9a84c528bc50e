// A UNet of Stable Diffusion 1.5's real configuration with random weights, made once and reused. Time and memory do not
// depend on what the weights are.

import { existsSync } from "node:fs";
import { mkdir, open, readFile, rename, rm, stat, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { STABLE_DIFFUSION_1_CONFIG } from "../src/models/single-file/stable-diffusion-1-config.js";
import { UNet2DConditionModel } from "../src/models/unet-2d-condition/unet-2d-condition.js";
import { parseUNetConfig } from "../src/models/unet-2d-condition/unet-config.js";
import { draw } from "../src/nn/index.js";
import { safetensorsHead } from "../src/storage/safetensors.js";
import { Generator } from "../src/tensor/random.js";
import { sizeOf, toBytes } from "../src/tensor/tensor.js";
import { NO_WEIGHTS, type Parameter, parametersOf } from "./model-parameters.js";

/** Where the bench keeps what it makes. */
export const BENCH_FOLDER = fileURLToPath(new URL("../runs/bench", import.meta.url));

/** Space that must stay free beyond the file itself. */
const SPARE_BYTES = 1e9;
const READ_BYTES = 16 * 2 ** 20;

/**
 * The folder of the UNet, in diffusers' layout: `unet/config.json` and `unet/diffusion_pytorch_model.safetensors`.
 *
 * @param config - Another UNet configuration, for a small trial. Default: Stable Diffusion 1.5's.
 * @param folder - Default `runs/bench/sd15`.
 * @throws {Error} If the disk has no room for the file.
 */
export async function sd15Folder(
  config: object = STABLE_DIFFUSION_1_CONFIG.unet,
  folder = join(BENCH_FOLDER, "sd15"),
): Promise<string> {
  const parameters = parametersOf(new UNet2DConditionModel(parseUNetConfig(config, "bench"), NO_WEIGHTS));
  const head = safetensorsHead(
    parameters.map(({ name, shape }) => ({ name, dtype: "F32" as const, shape })),
    { format: "pt" },
  );
  const sizeBytes = parameters.reduce((sum, { shape }) => sum + 4 * sizeOf(shape), head.length);
  const unetFolder = join(folder, "unet");
  const path = join(unetFolder, "diffusion_pytorch_model.safetensors");
  const configText = `${JSON.stringify(config, null, 2)}\n`;
  const configPath = join(unetFolder, "config.json");
  const isThere =
    existsSync(path) &&
    (await stat(path)).size === sizeBytes &&
    (await readFile(configPath, "utf8").catch(() => "")) === configText;
  if (isThere) return folder;
  await mkdir(unetFolder, { recursive: true });
  const { bavail, bsize } = await statfs(unetFolder);
  if (bavail * bsize < sizeBytes + SPARE_BYTES) {
    const [needed, free] = [sizeBytes + SPARE_BYTES, bavail * bsize].map((bytes) => (bytes / 1e9).toFixed(1));
    throw new Error(`${unetFolder}: the random weights need ${needed} GB of disk; ${free} GB are free.`);
  }
  console.error(`Writing random weights (${(sizeBytes / 1e9).toFixed(2)} GB) to ${path} …`);
  await writeWeights(path, head, parameters);
  await writeFile(configPath, configText);
  return folder;
}

/** Reads a file to its end, so that it lies in the page cache. */
export async function readIntoPageCache(path: string): Promise<void> {
  const file = await open(path);
  try {
    const buffer = new Uint8Array(READ_BYTES);
    while ((await file.read(buffer, 0, buffer.length)).bytesRead > 0);
  } finally {
    await file.close();
  }
}

async function writeWeights(path: string, head: Uint8Array, parameters: readonly Parameter[]): Promise<void> {
  const partial = `${path}.partial`;
  const generator = new Generator(0);
  const file = await open(partial, "w");
  try {
    await file.writeFile(head);
    for (const { shape, initializer } of parameters) {
      await file.writeFile(toBytes(draw(shape, initializer, generator)));
    }
  } catch (cause) {
    await rm(partial, { force: true });
    throw cause;
  } finally {
    await file.close();
  }
  await rename(partial, path);
}
