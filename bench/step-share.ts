// Where a trainer's step goes: seconds inside ONNX Runtime against seconds in all, for adapters on the embedded model and for
// the embedded model as a whole. Usage: npx tsx bench/step-share.ts [adapters|whole ...] [--steps N] [--batch N]

import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import * as recipe from "../examples/icons/recipe.js";
import { WholeModel } from "../examples/icons/whole-model.js";
import { demoConfig } from "../src/demo/run-demo.js";
import {
  AdamW,
  CLIPTextModel,
  createObjective,
  DiffusionBatches,
  FeRAModel,
  Generator,
  ParameterAverage,
  randint,
  randn,
  Trainer,
  type TrainerOptions,
  UNet2DConditionModel,
} from "../src/index.js";
import { tensor } from "../src/tensor/tensor.js";
import { measureProgram, sayPhase, sayResult } from "./measured-process.js";
import { OnnxTimes } from "./onnx-times.js";
import { formatPercent, formatSeconds } from "./statistics.js";

const EXAMPLES = 64;
const STEPS_TO_SETTLE = 3;

/** What one process measures. */
interface Task {
  what: "adapters" | "whole";
  steps: number;
  batchSize: number;
}

/** Per step, in seconds. */
interface Share {
  step: number;
  onnx: number;
  /** Median of the steps. */
  medianStep: number;
  loss: number;
  /** Processor time of the main thread, and of all threads: what a busy machine does not change. */
  mainProcessor: number;
  allProcessor: number;
}

const [, , first, ...more] = process.argv;
if (first?.startsWith("{")) sayResult(await measureShare(JSON.parse(first) as Task));
else await report([...(first === undefined ? [] : [first]), ...more]);

async function report(args: string[]): Promise<void> {
  const options = { steps: { type: "string", default: "30" }, batch: { type: "string", default: "8" } } as const;
  const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
  for (const what of (positionals.length > 0 ? positionals : ["adapters", "whole"]) as Task["what"][]) {
    const task: Task = { what, steps: Number(values.steps), batchSize: Number(values.batch) };
    const { result } = await measureProgram<Share>("step-share.ts", task);
    console.log(
      `${what}: ${formatSeconds(result.step)} per step (median ${formatSeconds(result.medianStep)}), of it ` +
        `${formatSeconds(result.onnx)} in ONNX Runtime, ${formatPercent(result.onnx / result.step)}; ` +
        `last loss ${result.loss}; processor time of the main thread ${formatSeconds(result.mainProcessor)}, of all ` +
        `${formatSeconds(result.allProcessor)}`,
    );
  }
}

async function measureShare({ what, steps, batchSize }: Task): Promise<Share> {
  const times = new OnnxTimes();
  sayPhase("load");
  const generator = new Generator(2);
  const unet = UNet2DConditionModel.fromConfig(recipe.UNET_CONFIG, generator);
  const [side, tokens] = [recipe.LATENT_SIZE, recipe.MAX_TOKENS];
  const shape = { batchSize, height: side, width: side, tokens };
  const optimizer = new AdamW({ lr: 1e-5 });
  const latents = randn([EXAMPLES, recipe.LATENT_CHANNELS, side, side], { generator });
  const output = await mkdtemp(join(tmpdir(), "fera-bench-"));
  const endedAt: number[] = [];
  let loss = Number.NaN;
  let [before, after] = [processorSeconds(), processorSeconds()];
  const common = {
    ...{ optimizer, output, steps: steps + STEPS_TO_SETTLE, maxGradientNorm: 1 },
    onStep: (report: { loss: number }) => {
      endedAt.push(performance.now());
      if (endedAt.length === STEPS_TO_SETTLE) before = processorSeconds();
      if (endedAt.length === STEPS_TO_SETTLE + steps) after = processorSeconds();
      loss = report.loss;
    },
  };
  const objective = createObjective(recipe.SCHEDULER_CONFIG);
  let trainable: TrainerOptions["trainable"] & { release(): Promise<void> };
  let data: ConstructorParameters<typeof DiffusionBatches>[0];
  sayPhase("create");
  if (what === "whole") {
    const words = recipe.VOCABULARY_SIZE;
    const textEncoder = CLIPTextModel.fromConfig(recipe.textEncoderConfig(words, words - 1), generator);
    trainable = await WholeModel.compile({ denoiser: unet, textEncoder }, shape);
    const empty = tensor(new BigInt64Array(tokens), [1, tokens], "int64");
    const inputIds = randint(0, words, [EXAMPLES, tokens], { generator });
    data = { latents, conditioning: { inputIds }, empty: { inputIds: empty } };
  } else {
    const fera = new FeRAModel(unet, demoConfig());
    trainable = (await fera.compileTrainStep({ ...shape, optimizer })) as unknown as typeof trainable;
    const draw = (rows: number) => randn([rows, tokens, recipe.TEXT_FEATURES], { generator });
    data = { latents, conditioning: { encoderHiddenStates: draw(EXAMPLES) }, empty: { encoderHiddenStates: draw(1) } };
  }
  const batches = new DiffusionBatches(data, { batchSize, captionDropout: 0.1, objective, generator });
  sayPhase("steps");
  try {
    const average = new ParameterAverage(trainable.parameters, 0.99);
    await new Trainer({ ...common, trainable, batches, average }).run();
  } finally {
    await rm(output, { recursive: true, force: true });
  }
  await times.finish(steps + STEPS_TO_SETTLE);
  await trainable.release();
  const ends = endedAt.slice(STEPS_TO_SETTLE - 1);
  const each = ends.slice(1).map((end, i) => (end - ends[i]!) / 1000);
  const onnx = times.run.slice(STEPS_TO_SETTLE, STEPS_TO_SETTLE + steps).reduce((sum, value) => sum + value, 0) / steps;
  const medianStep = [...each].sort((a, b) => a - b)[Math.floor(each.length / 2)]!;
  return {
    step: each.reduce((sum, value) => sum + value, 0) / steps,
    onnx,
    medianStep,
    loss,
    mainProcessor: (after.main - before.main) / steps,
    allProcessor: (after.all - before.all) / steps,
  };
}

/** Processor time so far, of the main thread and of all; Linux only. */
function processorSeconds(): { main: number; all: number } {
  const ticks = (file: string) => {
    // Behind the program's name in brackets; fields 14 and 15 of proc(5).
    const fields = readFileSync(file, "utf8").split(") ").at(-1)!.split(" ");
    return (Number(fields[11]) + Number(fields[12])) / 100;
  };
  return { main: ticks(`/proc/self/task/${process.pid}/stat`), all: ticks("/proc/self/stat") };
}
