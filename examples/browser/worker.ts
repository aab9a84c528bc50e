// The library's home: ONNX Runtime blocks the thread that it computes on.

import {
  AdamW,
  configureWebRuntime,
  FeRAConfig,
  FeRAModel,
  Generator,
  randint,
  randn,
  StableDiffusionPipeline,
  scaledLatents,
  type Tensor,
  tensor,
} from "fera";
import mjs from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.mjs?url";
import wasm from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url";
import type { Answer, TrainRequest } from "./messages.js";

const MODEL = "/icons";

configureWebRuntime({ files: { wasm, mjs }, threads: navigator.hardwareConcurrency });

const tell = (answer: Answer): void => self.postMessage(answer);
const say = (text: string): void => tell({ kind: "status", text });

self.onmessage = async ({ data }: MessageEvent<TrainRequest>) => {
  try {
    await train(data);
  } catch (error) {
    tell({ kind: "failed", message: (error as Error).message });
  }
};

async function train({ pictures, caption, prompt, steps }: TrainRequest): Promise<void> {
  say("Loading the model");
  const pipeline = await StableDiffusionPipeline.fromPretrained(MODEL);
  const fera = new FeRAModel(pipeline.unet, new FeRAConfig({ rank: 4, numExperts: 3 }));

  say("Drawing");
  const draw = async (canvas: "before" | "after"): Promise<void> => {
    const { images } = await pipeline.generate({ prompt, seed: 0, steps: 15 });
    tell({ kind: "drawn", canvas, image: toImageData(images[0]!) });
  };
  await draw("before");

  say("Encoding pictures");
  const encoded: Tensor<"float32">[] = [];
  for (const picture of pictures) encoded.push(await encode(pipeline, toTensor(picture, pipeline.defaultSize)));
  const encoderHiddenStates = await pipeline.encodePrompt([caption]);

  say("Compiling the training step");
  const [, , height, width] = encoded[0]!.shape as [number, number, number, number];
  const tokens = encoderHiddenStates.shape[1]!;
  const step = await fera.compileTrainStep({
    batchSize: 1,
    latentHeight: height,
    latentWidth: width,
    tokens,
    optimizer: new AdamW({ lr: 1e-3 }),
  });
  const { scheduler } = pipeline;
  const generator = new Generator(0);
  for (let i = 0; i < steps; i++) {
    const clean = encoded[i % encoded.length]!;
    const noise = randn(clean.shape, { generator });
    const timesteps = randint(0, scheduler.alphasCumprod!.length, [1], { generator });
    const { loss } = await step.run({
      latents: scheduler.addNoise(clean, noise, timesteps),
      timesteps,
      encoderHiddenStates,
      target: scheduler.predictionType === "v_prediction" ? scheduler.getVelocity(clean, noise, timesteps) : noise,
    });
    say(`Step ${i + 1} of ${steps}, loss ${loss.toFixed(4)}`);
  }

  say("Drawing");
  pipeline.useAdapters(fera);
  await draw("after");
  const adapter = fera.toSafetensors();
  await pipeline.release();
  tell({ kind: "done", adapter });
}

/** Scaled latents `[1, C, h, w]` of an image `[1, 3, H, W]`. */
async function encode({ vae }: StableDiffusionPipeline, image: Tensor<"float32">): Promise<Tensor<"float32">> {
  const encoded = await vae.encode(image);
  return scaledLatents("latents" in encoded ? encoded.latents : encoded.mean, await vae.latentScaling());
}

/** A picture, cut to a square from its middle, as `[1, 3, side, side]` in −1 … 1. */
function toTensor(picture: ImageBitmap, side: number): Tensor<"float32"> {
  const context = new OffscreenCanvas(side, side).getContext("2d")!;
  context.fillStyle = "white";
  context.fillRect(0, 0, side, side);
  const cut = Math.min(picture.width, picture.height);
  context.drawImage(picture, (picture.width - cut) / 2, (picture.height - cut) / 2, cut, cut, 0, 0, side, side);
  const { data } = context.getImageData(0, 0, side, side);
  const plane = side * side;
  const values = Float32Array.from({ length: 3 * plane }, (_, i) => {
    const channel = Math.floor(i / plane);
    return data[4 * (i % plane) + channel]! / 127.5 - 1;
  });
  return tensor(values, [1, 3, side, side]);
}

/** An image `[3, H, W]` in −1 … 1 for a canvas. */
function toImageData({ data, shape }: Tensor<"float32">): ImageData {
  const [, height, width] = shape as [number, number, number];
  const plane = height * width;
  const image = new ImageData(width, height);
  for (let i = 0; i < plane; i++) {
    for (let channel = 0; channel < 3; channel++) {
      image.data[4 * i + channel] = Math.round((data[channel * plane + i]! + 1) * 127.5);
    }
    image.data[4 * i + 3] = 255;
  }
  return image;
}
