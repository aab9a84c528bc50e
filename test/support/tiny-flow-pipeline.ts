// Whole pipelines of flow matching that are small and can be trained: the golden ones, with what these lack for the usual options.

import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ZImageTransformer2DModel } from "../../src/models/index.js";
import { readSafetensors, writeSafetensors } from "../../src/storage/index.js";
import { Generator } from "../../src/tensor/random.js";
import type { Tensor } from "../../src/tensor/tensor.js";

const GOLDEN = "test/reference/pipelines";
/** FLUX.2 reads layers 9, 18 and 27. */
const TEXT_LAYERS = 28;

/** Writes FLUX.2-klein with a text encoder of as many layers as are read, the golden ones again and again. */
export async function writeTinyKlein(dir: string): Promise<void> {
  await cp(join(GOLDEN, "flux2-klein"), dir, { recursive: true });
  const configPath = join(dir, "text_encoder", "config.json");
  const config = JSON.parse(await readFile(configPath, "utf8")) as {
    num_hidden_layers: number;
    layer_types?: string[];
  };
  const layers = config.num_hidden_layers;
  const types = config.layer_types && Array<string>(TEXT_LAYERS).fill(config.layer_types[0]!);
  await writeFile(
    configPath,
    JSON.stringify({ ...config, num_hidden_layers: TEXT_LAYERS, ...(types && { layer_types: types }) }),
  );
  const path = join(dir, "text_encoder", "model.safetensors");
  const { tensors } = await readSafetensors(path);
  const all = new Map<string, Tensor>();
  for (const [name, value] of tensors) {
    const [, before, layer, after] = /^(.*layers\.)(\d+)(\..*)$/.exec(name) ?? [];
    if (layer === undefined) all.set(name, value);
    else for (let at = Number(layer); at < TEXT_LAYERS; at += layers) all.set(`${before}${at}${after}`, value);
  }
  await writeSafetensors(path, all);
}

/** Writes Z-Image with random weights of its transformer, which the golden folder does not have. */
export async function writeTinyZImage(dir: string): Promise<void> {
  await cp(join(GOLDEN, "z-image"), dir, { recursive: true });
  const config: unknown = JSON.parse(await readFile(join(dir, "transformer", "config.json"), "utf8"));
  const { _class_name: _, _diffusers_version: _version, ...own } = config as Record<string, unknown>;
  const { weights } = ZImageTransformer2DModel.fromConfig(own, new Generator(1)).weights;
  const tensors = [...weights].map(([name, weight]) => [name, (weight as { tensor: Tensor }).tensor] as const);
  await writeSafetensors(join(dir, "transformer", "diffusion_pytorch_model.safetensors"), new Map(tensors));
}
