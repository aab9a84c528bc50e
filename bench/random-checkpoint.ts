// A checkpoint of a published configuration with random weights in bfloat16, in shards as the hub has them. Time and memory do
// not depend on what the weights are; written as fast as the disk takes them, never held.

import { existsSync } from "node:fs";
import { mkdir, open, readFile, rename, rm, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { draw } from "../src/nn/index.js";
import { encodeFloats } from "../src/storage/float-weights.js";
import { safetensorsHead } from "../src/storage/safetensors.js";
import { Generator, randn } from "../src/tensor/random.js";
import { sizeOf, tensor } from "../src/tensor/tensor.js";
import type { Parameter } from "./model-parameters.js";
import { type RealModel, realParameters } from "./real-models.js";

/** As large as diffusers makes them. */
const SHARD_BYTES = 10e9;
/** Space that must stay free beyond the file itself. */
const SPARE_BYTES = 2e9;
/** Normal numbers are drawn once and repeated from another place for every weight. */
const DRAWN = 2 ** 22;
/** Of a weight: then layers of a few thousand features neither grow nor shrink what they are given much. */
const STD = 0.02;
const NAME = "diffusion_pytorch_model";

/**
 * Writes the model's folder, unless it is there.
 *
 * @param folder - Of the pipeline.
 * @throws {Error} If the disk has no room.
 */
export async function writeRandomCheckpoint(real: RealModel, folder: string): Promise<void> {
  const own = join(folder, real.subfolder);
  const configPath = join(own, "config.json");
  const configText = `${JSON.stringify(real.config, null, 2)}\n`;
  if (existsSync(configPath) && (await readFile(configPath, "utf8")) === configText) return;
  await rm(own, { recursive: true, force: true });
  await mkdir(own, { recursive: true });
  const parameters = realParameters(real);
  const total = parameters.reduce((sum, { shape }) => sum + 2 * sizeOf(shape), 0);
  const { bavail, bsize } = await statfs(own);
  if (bavail * bsize < total + SPARE_BYTES) {
    const [needed, free] = [total + SPARE_BYTES, bavail * bsize].map((bytes) => (bytes / 1e9).toFixed(1));
    throw new Error(`${own}: the random weights need ${needed} GB of disk; ${free} GB are free.`);
  }
  console.error(`Writing ${(total / 2e9).toFixed(2)} billion random weights to ${own} …`);
  const shards = inShards(parameters);
  const weights = new RandomBytes();
  const files = new Map<string, string>();
  for (const [i, shard] of shards.entries()) {
    const of = `-${String(i + 1).padStart(5, "0")}-of-${String(shards.length).padStart(5, "0")}`;
    const file = `${NAME}${shards.length === 1 ? "" : of}.safetensors`;
    await writeShard(join(own, file), shard, weights);
    for (const { name } of shard) files.set(name, file);
  }
  if (shards.length > 1) {
    const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(files) };
    await writeFile(join(own, `${NAME}.safetensors.index.json`), JSON.stringify(index));
  }
  // Last: a folder with a configuration is whole.
  await writeFile(`${configPath}.partial`, configText);
  await rename(`${configPath}.partial`, configPath);
}

function inShards(parameters: readonly Parameter[]): Parameter[][] {
  const shards: Parameter[][] = [[]];
  let bytes = 0;
  for (const parameter of parameters) {
    const own = 2 * sizeOf(parameter.shape);
    if (bytes + own > SHARD_BYTES && bytes > 0) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)!.push(parameter);
    bytes += own;
  }
  return shards;
}

async function writeShard(path: string, parameters: readonly Parameter[], weights: RandomBytes): Promise<void> {
  const tensors = parameters.map(({ name, shape }) => ({ name, dtype: "BF16" as const, shape }));
  const file = await open(path, "w");
  try {
    await file.writeFile(safetensorsHead(tensors, { format: "pt" }));
    for (const parameter of parameters) {
      for (const part of weights.of(parameter)) await file.writeFile(part);
    }
  } finally {
    await file.close();
  }
}

/** Weights as bytes: matrices normal, norms as they begin, biases 0. */
class RandomBytes {
  private readonly generator = new Generator(0);
  private readonly drawn: Uint8Array;

  constructor() {
    const values = randn([DRAWN], { generator: this.generator });
    this.drawn = encodeFloats(
      tensor(
        values.data.map((value) => STD * value),
        [DRAWN],
      ),
      "bfloat16",
    );
  }

  *of({ name, shape, initializer }: Parameter): IterableIterator<Uint8Array> {
    const size = sizeOf(shape);
    if (initializer.kind === "constant" || initializer.kind === "values" || name.endsWith(".bias")) {
      const kind = name.endsWith(".bias") ? { kind: "constant" as const, value: 0 } : initializer;
      yield encodeFloats(draw(shape, kind, this.generator), "bfloat16");
      return;
    }
    let at = Math.floor(this.generator.uniform() * DRAWN);
    for (let left = size; left > 0; ) {
      const count = Math.min(left, DRAWN - at);
      yield this.drawn.subarray(2 * at, 2 * (at + count));
      left -= count;
      at = 0;
    }
  }
}
