// Trains the embedded model's autoencoder from scratch on the noto icons: random 64×64 crops of 128×128 drawings.
// Usage: npx tsx scripts/embedded/train-autoencoder.ts OUTPUT_FOLDER [STEPS]

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gradients } from "../../src/autodiff/index.js";
import * as ops from "../../src/graph/index.js";
import { Graph } from "../../src/graph/index.js";
import { AutoencoderTiny, decodeTiny, encodeTiny } from "../../src/models/autoencoder-tiny/autoencoder-tiny.js";
import { Scope, TrainableParameters } from "../../src/nn/index.js";
import { compile } from "../../src/runtime/index.js";
import { writeSafetensors } from "../../src/storage/index.js";
import "../../src/runtime/node.js";
import { Generator, rand, randn } from "../../src/tensor/random.js";
import { type Tensor, tensor } from "../../src/tensor/tensor.js";
import { rasterizeIcons } from "../../src/training/data/icons.js";
import { learningRateSchedule } from "../../src/training/learning-rate.js";
import { AdamW } from "../../src/training/optimizers/adamw.js";
import { AUTOENCODER_CONFIG, IMAGE_SIZE, SEED, trainingNames } from "./recipe.js";

const [output = "runs/embedded/vae", stepsText = "2200"] = process.argv.slice(2);
const STEPS = Number(stepsText);
const BATCH = 16;
const CROP = 64;
const SIZE = IMAGE_SIZE;
/** Weight of the latents' mean square: keeps them near unit size. */
const LATENT_WEIGHT = 2e-3;
/** Standard deviation of the noise that the decoder must bear: makes latents smooth. */
const LATENT_NOISE = 0.1;

const config = AUTOENCODER_CONFIG;
const generator = new Generator(SEED);
const model = AutoencoderTiny.fromConfig(config, generator);
const names = trainingNames();
const rgb = await rasterizeIcons("noto", names, SIZE);
console.log(`${names.length} icons`);

const parameters = new Map<string, Tensor<"float32">>();
for (const [name, weight] of model.weights.weights) if ("tensor" in weight) parameters.set(name, weight.tensor);

const graph = new Graph();
const source = new TrainableParameters(parameters, "autoencoder");
const scope = new Scope(graph, source);
const image = graph.input("image", "float32", [BATCH, 3, CROP, CROP]);
const noise = graph.input("noise", "float32", [BATCH, 4, CROP / 4, CROP / 4]);
const latents = encodeTiny(scope, image, model.config);
const decoded = decodeTiny(scope, ops.add(latents, ops.mul(noise, LATENT_NOISE)), model.config);
const difference = ops.sub(decoded, image);
const square = ops.mul(difference, difference);
// √(d² + ε²): absolute error with a smooth foot, which keeps edges sharp.
const absolute = ops.reduceMean(ops.sqrt(ops.add(square, 1e-4)));
const loss = ops.add(
  ops.add(absolute, ops.reduceMean(square)),
  ops.mul(ops.reduceMean(ops.mul(latents, latents)), LATENT_WEIGHT),
);
const wanted = [...source.values];
gradients(
  loss,
  wanted.map(([, value]) => value),
).forEach((gradient, i) => {
  graph.output(`gradient.${wanted[i]![0]}`, gradient);
});
graph.output("loss", loss);
graph.output("mse", ops.reduceMean(square));
graph.output("power", ops.reduceMean(ops.mul(latents, latents)));
const step = await compile(graph);

const optimizer = new AdamW({ lr: 2e-3, weightDecay: 0 });
const schedule = learningRateSchedule({ name: "cosine", learningRate: 2e-3, warmupSteps: 100, totalSteps: STEPS });
const data = new Map([...parameters].map(([name, value]) => [name, value.data]));
await mkdir(output, { recursive: true });
const started = Date.now();
const log: string[] = [];

async function save(): Promise<void> {
  await writeSafetensors(join(output, "diffusion_pytorch_model.safetensors"), parameters, { format: "pt" });
  await writeFile(
    join(output, "config.json"),
    `${JSON.stringify({ _class_name: "AutoencoderTiny", ...config }, null, 2)}\n`,
  );
  await writeFile(join(output, "metrics.jsonl"), `${log.join("\n")}\n`);
}

for (let index = 0; index < STEPS; index++) {
  const result = await step.run({
    ...Object.fromEntries(parameters),
    image: crops(),
    noise: randn([BATCH, 4, CROP / 4, CROP / 4], { generator }),
  });
  const slopes = new Map(wanted.map(([name]) => [name, result[`gradient.${name}`]!.data as Float32Array]));
  optimizer.step(data, slopes, { learningRate: schedule(index) });
  if (index % 20 === 0 || index === STEPS - 1) {
    const [value, mse, power] = ["loss", "mse", "power"].map((name) => (result[name]!.data as Float32Array)[0]!);
    const seconds = (Date.now() - started) / 1000;
    log.push(JSON.stringify({ step: index, loss: value, mse, latentPower: power, seconds }));
    const psnr = 10 * Math.log10(4 / mse!);
    console.log(
      `step ${index} loss ${value!.toFixed(4)} psnr ${psnr.toFixed(2)} dB power ${power!.toFixed(3)} ${seconds.toFixed(0)} s`,
    );
  }
  if (index % 500 === 499) await save();
}
await save();

/** Random crops, mirrored half of the time; crops of mere background are drawn again. */
function crops(): Tensor<"float32"> {
  const batch = new Float32Array(BATCH * 3 * CROP * CROP);
  for (let i = 0; i < BATCH; i++) {
    const [pick, left, top, mirror] = rand([4], { generator }).data as unknown as [number, number, number, number];
    const icon = Math.floor(pick * names.length);
    const x0 = Math.floor(left * (SIZE - CROP + 1));
    const y0 = Math.floor(top * (SIZE - CROP + 1));
    for (let y = 0; y < CROP; y++) {
      for (let x = 0; x < CROP; x++) {
        const column = mirror < 0.5 ? x0 + x : x0 + CROP - 1 - x;
        const from = ((icon * SIZE + y0 + y) * SIZE + column) * 3;
        const to = (i * 3 * CROP + y) * CROP + x;
        for (let c = 0; c < 3; c++) batch[to + c * CROP * CROP] = rgb[from + c]! / 127.5 - 1;
      }
    }
  }
  return tensor(batch, [BATCH, 3, CROP, CROP]);
}
