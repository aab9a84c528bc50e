// The names that the entries promise, and that they suffice: what can be passed to a function can be made.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import * as fera from "../src/index.js";
import * as inference from "../src/node-inference.js";

const MODEL = "test/reference/unet-sd15";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fera-api-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** Classes and their methods; `static` ones after a colon. */
const CLASSES: Readonly<Record<string, string>> = {
  Tensor: "",
  Generator: "",
  FeRAConfig: "toJSON:reference fromJSON",
  LoRAConfig: "toJSON:fromJSON",
  DoRAConfig: "toJSON:fromJSON",
  LoKrConfig: "toJSON:fromJSON",
  LoHaConfig: "toJSON:fromJSON",
  TLoRAConfig: "toJSON:fromJSON",
  FrequencyEnergyIndicator: "compute",
  SoftFrequencyRouter: "compute",
  FeRAModel: "route stateDict loadStateDict predict compileTrainStep saveAdapters loadAdapters toSafetensors dispose",
  AdapterModel:
    "stateDict loadStateDict predict compileTrainStep saveAdapters loadAdapters toSafetensors dispose:create",
  UNet2DConditionModel: "predict dispose:fromPretrained",
  ZImageTransformer2DModel: "predict dispose:fromPretrained",
  Flux2Transformer2DModel: "predict dispose:fromPretrained",
  FluxTransformer2DModel: "predict dispose:fromPretrained",
  SD3Transformer2DModel: "predict dispose:fromPretrained",
  AutoencoderKL: "encode decode:fromPretrained",
  AutoencoderKLFlux2: "encode decode:fromPretrained",
  AutoencoderTiny: "encode decode:fromPretrained",
  CLIPTextModel: ":fromPretrained",
  CLIPTextModelWithProjection: ":fromPretrained",
  T5EncoderModel: "encode:fromPretrained",
  Qwen3Model: "hiddenStates:fromPretrained",
  ...Object.fromEntries(
    ["StableDiffusion3Pipeline", "FluxPipeline", "Flux2KleinPipeline", "ZImagePipeline"].map((name) => [
      name,
      "generate loadAdapters setAdapterScale unloadAdapters setAdapters fuseLora encodePrompt dispose:fromPretrained",
    ]),
  ),
  ...Object.fromEntries(
    ["StableDiffusionPipeline", "StableDiffusionXLPipeline"].map((name) => [
      name,
      "generate loadAdapters setAdapterScale unloadAdapters setAdapters deleteAdapters disableAdapters enableAdapters " +
        "fuseLora loadTextualInversion unloadTextualInversion dispose:fromPretrained fromSingleFile",
    ]),
  ),
  ...Object.fromEntries(
    [
      "DDIM",
      "DDPM",
      "PNDM",
      "LCM",
      "FlowMatchEulerDiscrete",
      "EulerDiscrete",
      "EulerAncestralDiscrete",
      "DPMSolverMultistep",
      "UniPCMultistep",
    ].map((name) => [`${name}Scheduler`, "setTimesteps scaleModelInput step addNoise getVelocity"]),
  ),
};
const FUNCTIONS = [
  ...[
    "tensor",
    "randn",
    "rand",
    "randint",
    "randperm",
    "readSafetensors",
    "writeSafetensors",
    "readTorch",
    "writeTorch",
  ],
  ...["frequencyEnergyConsistencyLoss", "readAdapter", "writeAdapter", "encodeAdapter", "readImage", "writeImage"],
  ...["readTokenEmbedding", "writeTokenEmbedding", "readGenerationSettings", "withGenerationSettings"],
];
const TRAINING_CLASSES: Readonly<Record<string, string>> = {
  AdamW: "step stateDict loadStateDict",
  ...Object.fromEntries(
    ["AdamW8bit", "Adafactor", "Lion", "Prodigy", "ScheduleFreeAdamW", "Muon"].map((name) => [
      name,
      "step stateDict loadStateDict",
    ]),
  ),
  Trainer: "run resume",
  DiffusionBatches: "next state restore",
  ParameterAverage: "update",
  TextTraining: "compileTrainStep:create",
  PowerFunctionAverages: "update snapshots restore",
};
const TRAINING_FUNCTIONS = [
  "gradients",
  "fineTune",
  "openDataset",
  "bucketsOf",
  "renderContactSheet",
  "encodeDataset",
  "createObjective",
  "samplingConfig",
  "pointwiseLoss",
  "lossWeighting",
  "lossMaskOf",
  "drawTimesteps",
  "drawNoise",
  "dynamicShift",
  "noisedBatch",
  "createOptimizer",
  "textEncoderConfig",
  "postHocAverage",
];

type Named = Readonly<Record<string, unknown>>;

function missingClasses(entry: Named, classes: Readonly<Record<string, string>>): string[] {
  return Object.entries(classes).flatMap(([name, members]) => {
    if (typeof entry[name] !== "function") return [name];
    const made = entry[name] as unknown as Named & { prototype: Named };
    const [own = "", statics = ""] = members.split(":");
    const methods = own.split(" ").filter(Boolean);
    return [
      ...methods.filter((method) => typeof made.prototype[method] !== "function").map((method) => `${name}.${method}`),
      ...statics.split(" ").filter((method) => method && typeof made[method] !== "function"),
    ];
  });
}

const missingFunctions = (entry: Named, names: readonly string[]): string[] =>
  names.filter((name) => typeof entry[name] !== "function");

it("fera and fera/inference have the promised classes, methods and functions", () => {
  for (const entry of [fera, inference]) {
    expect(missingClasses(entry, CLASSES)).toEqual([]);
    expect(missingFunctions(entry, FUNCTIONS)).toEqual([]);
  }
});

it("fera has those of training, fera/inference has not", () => {
  expect(missingClasses(fera, TRAINING_CLASSES)).toEqual([]);
  expect(missingFunctions(fera, TRAINING_FUNCTIONS)).toEqual([]);
  const names = [...Object.keys(TRAINING_CLASSES), ...TRAINING_FUNCTIONS];
  expect(names.filter((name) => name in inference)).toEqual([]);
});

it("AutoPipelineForText2Image loads the class that model_index.json names", async () => {
  for (const [folder, expected] of [
    ["pipeline-tiny", fera.StableDiffusionPipeline],
    ["pipeline-tiny-xl", fera.StableDiffusionXLPipeline],
  ] as const) {
    const pipe = await fera.AutoPipelineForText2Image.fromPretrained(`test/reference/${folder}`);
    expect(pipe).toBeInstanceOf(expected);
    await pipe.dispose();
  }
});

it("a Trainer can be made from what fera exports, of any adapter and any optimizer", async () => {
  const { AdapterModel, DiffusionBatches, Generator, Lion, LoRAConfig, ParameterAverage, randn, Trainer } = fera;
  const unet = await fera.UNet2DConditionModel.fromPretrained(MODEL, { subfolder: "unet" });
  const model = new AdapterModel(unet, new LoRAConfig({ rank: 2 }));
  const optimizer = new Lion({ lr: 1e-3 });
  const average = new ParameterAverage(model.parameters, 0.5);
  const before = model.stateDict();
  const step = await model.compileTrainStep({ batchSize: 1, latentHeight: 8, latentWidth: 8, tokens: 3 });
  const generator = new Generator(1);
  const dataset: fera.EncodedDataset = {
    latents: randn([2, 4, 8, 8], { generator }),
    conditioning: { encoderHiddenStates: randn([2, 3, 24], { generator }) },
    empty: { encoderHiddenStates: randn([1, 3, 24], { generator }) },
  };
  const objective = fera.createObjective({ prediction_type: "epsilon" });
  const batches = new DiffusionBatches(dataset, { batchSize: 1, captionDropout: 0.1, objective, generator });
  const reports: fera.StepReport[] = [];
  const options: fera.TrainerOptions = {
    ...{ trainable: step, batches, optimizer, average, steps: 2, output: join(folder, "run") },
    onStep: (report) => void reports.push(report),
  };
  const { finished, parameters } = await new Trainer(options).run();
  expect(finished).toBe(true);
  expect(reports.map(({ step }) => step)).toEqual([1, 2]);
  expect(reports.every(({ loss, mse }) => loss === mse && loss > 0)).toBe(true);
  expect([...parameters.keys()]).toEqual([...model.parameters.keys()]);
  expect(model.stateDict()).not.toEqual(before);
  await step.release();

  const bytes = model.toSafetensors();
  const again = new AdapterModel(unet, new LoRAConfig());
  await again.loadAdapters(bytes);
  expect(again.config.rank).toBe(2);
  expect(again.stateDict()).toEqual(model.stateDict());
  expect((await fera.readAdapter(bytes)).config.adapterType).toBe("lora");
  await unet.dispose();
});
