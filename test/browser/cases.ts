// Parity cases that run inside the browser, on the golden values that the page's server offers under /reference.

import {
  AdamW,
  type Device,
  decodeSafetensors,
  FeRAConfig,
  FeRAModel,
  FrequencyEnergyIndicator,
  frequencyEnergyConsistencyLoss,
  ImageTensor,
  SoftFrequencyRouter,
  type Tensor,
  UNet2DConditionModel,
} from "fera";
import { goldenCases } from "../support/golden-cases.js";
import { relativeError } from "../support/relative-error.js";

/** One number against the golden value. */
export interface Check {
  what: string;
  /** Relative L2 error, or for a scalar the relative difference. */
  error: number;
  limit: number;
}

export interface CaseRequest {
  name: CaseName;
  device: Extract<Device, "wasm" | "webgpu">;
  /** Optimizer steps of the training case: all that the reference did, or the first ones. */
  steps: number;
}

export interface CaseResult {
  checks: Check[];
  /** Whether the page may use threads. */
  isolated: boolean;
  seconds: number;
  error?: string | undefined;
}

type Case = (device: CaseRequest["device"], steps: number) => Promise<Check[]>;

export const cases = {
  loading,
  indicator,
  router,
  consistencyLoss,
  unetSd15,
  unetSd15Training,
  torchFile,
  images,
} satisfies Record<string, Case>;

export type CaseName = keyof typeof cases;

/** Optimizer steps that the reference did. */
export const REFERENCE_STEPS = 8;
/**
 * The consistency loss is that of a small difference between two large outputs, so that rounding shows: WebAssembly, which
 * has no fused multiply-add, is off by up to 1.4e-3 where x86 kernels are off by 1.3e-4 and WebGPU by up to 4.9e-4.
 */
const CONSISTENCY_LIMIT = { wasm: 3e-3, webgpu: 1e-3 };

/** A model comes with progress, a second time from the browser's cache, and ends with the standard AbortError. */
async function loading(device: Device): Promise<Check[]> {
  const options = { subfolder: "unet", device };
  const load = async (more: object = {}) => {
    const calls: { receivedBytes: number; totalBytes: number }[] = [];
    const onProgress = (each: (typeof calls)[number]) => calls.push(each);
    const model = await UNet2DConditionModel.fromPretrained("/reference/unet-sd15", {
      ...options,
      onProgress,
      ...more,
    });
    return { calls, names: [...model.weights.weights.keys()] };
  };
  for (const name of await caches.keys()) await caches.delete(name);
  const first = await load();
  const second = await load();
  const last = first.calls.at(-1)!;
  const failure: unknown = await load({ signal: AbortSignal.abort() }).catch((error: unknown) => error);
  const isAbort = failure instanceof DOMException && failure.name === "AbortError";
  const weightCalls = second.calls.filter(({ totalBytes }) => totalBytes > 100_000).length;
  return [
    { what: "bytes that are missing at the end", error: last.totalBytes - last.receivedBytes, limit: 1 },
    { what: "no report while weights come", error: first.calls.length > 1 ? 0 : 1, limit: 1 },
    { what: "reports of weights that came again", error: weightCalls, limit: 1 },
    { what: "other weights from the cache", error: first.names.join() === second.names.join() ? 0 : 1, limit: 1 },
    { what: "an abort that is no AbortError", error: isAbort ? 0 : 1, limit: 1 },
  ];
}

async function indicator(device: Device): Promise<Check[]> {
  const { tensors, metadata } = await reference("indicator.safetensors");
  const checks: Check[] = [];
  for (const { name, settings } of goldenCases(metadata, 5)) {
    const computed = new FrequencyEnergyIndicator({ numBands: settings.num_bands }, { device });
    const { energies, bands } = await computed.compute(tensors.get(`${name}.latents`)!);
    checks.push({ what: `${name} energies`, error: distance(energies, tensors.get(`${name}.energies`)), limit: 1e-5 });
    bands.forEach((band, k) => {
      checks.push({ what: `${name} band ${k}`, error: distance(band, tensors.get(`${name}.band${k}`)), limit: 1e-5 });
    });
    await computed.release();
  }
  return checks;
}

async function router(device: Device): Promise<Check[]> {
  const { tensors, metadata } = await reference("router.safetensors");
  const checks: Check[] = [];
  for (const { name, settings } of goldenCases(metadata, 3)) {
    const { num_bands: numBands, num_experts: numExperts, tau } = settings;
    const own = [...tensors].filter(([key]) => key.startsWith(`${name}.`));
    const state = new Map(own.map(([key, value]) => [key.slice(name.length + 1), value]));
    const computed = new SoftFrequencyRouter({ numBands, numExperts, tau, state }, { device });
    const weights = await computed.compute(state.get("energies")!);
    checks.push({ what: `${name} gates`, error: distance(weights, state.get("weights")), limit: 1e-5 });
    await computed.release();
  }
  return checks;
}

async function consistencyLoss(device: Device): Promise<Check[]> {
  const { tensors, metadata } = await reference("consistency_loss.safetensors");
  const checks: Check[] = [];
  for (const { name, settings } of goldenCases(metadata, 4)) {
    const { num_bands: numBands, fecl_weight: feclWeight } = settings;
    const [base, fera, target] = ["base", "fera", "target"].map((key) => tensors.get(`${name}.${key}`)!);
    const given = { base: base!, fera: fera!, target: target!, config: { numBands, feclWeight } };
    const { loss, gradient } = await frequencyEnergyConsistencyLoss(given, { device });
    const expected = (tensors.get(`${name}.loss`)!.data as Float32Array)[0]!;
    checks.push({ what: `${name} loss`, error: relativeDifference(loss, expected), limit: 1e-3 });
    checks.push({
      what: `${name} gradient`,
      error: distance(gradient, tensors.get(`${name}.grad.fera`)),
      limit: 2e-3,
    });
  }
  return checks;
}

async function openUnetSd15(device: Device) {
  const { tensors, metadata } = await reference("unet-sd15/expected.safetensors");
  const unet = await UNet2DConditionModel.fromPretrained("/reference/unet-sd15", { subfolder: "unet", device });
  const fera = new FeRAModel(unet, FeRAConfig.reference());
  await fera.loadAdapters(await bytes("unet-sd15/adapters_initial.safetensors"));
  const given = (key: string): Tensor => tensors.get(key)!;
  const inputs = {
    latents: given("latents"),
    timesteps: given("timesteps"),
    encoderHiddenStates: given("encoder_hidden_states"),
  };
  const release = async () => {
    await fera.release();
    await unet.release();
  };
  return { fera, given, inputs, optimizer: JSON.parse(metadata.optimizer!), release };
}

/** Base and adapted output, and the routing. */
async function unetSd15(device: Device): Promise<Check[]> {
  const { fera, given, inputs, release } = await openUnetSd15(device);
  const { output, energies, weights } = await fera.predictWithRoute(inputs);
  const base = await fera.predict({ ...inputs, adapters: false });
  await release();
  return [
    { what: "adapted output", error: distance(output, given("fera_output")), limit: 2e-4 },
    { what: "energies", error: distance(energies, given("energies")), limit: 1e-5 },
    { what: "gates", error: distance(weights, given("routing_weights")), limit: 1e-5 },
    { what: "base output", error: distance(base, given("base_output")), limit: 2e-4 },
  ];
}

/** Every gradient, the losses of steps of AdamW, and after all of them the adapters. */
async function unetSd15Training(device: CaseRequest["device"], steps: number): Promise<Check[]> {
  const { fera, given, inputs, optimizer, release } = await openUnetSd15(device);
  const { lr, betas, eps, weight_decay: weightDecay } = optimizer;
  const adamW = new AdamW({ lr, betas, eps, weightDecay });
  // The first step's gradients, held as the parameters of another model, which gives them the reference's names.
  let held: FeRAModel | undefined;
  const [batchSize, , height, width] = inputs.latents.shape as [number, number, number, number];
  const step = await fera.compileTrainStep({
    batchSize,
    height,
    width,
    tokens: inputs.encoderHiddenStates.shape[1]!,
    optimizer: {
      step: (parameters, gradients) => {
        if (!held) {
          held = new FeRAModel(fera.model, FeRAConfig.reference());
          for (const [name, gradient] of gradients) held.parameters.get(name)!.data.set(gradient);
        }
        adamW.step(parameters, gradients);
      },
    },
  });
  const batch = { ...inputs, target: given("target") };
  const checks: Check[] = [];
  const check = (what: string, error: number, limit: number) => checks.push({ what, error, limit });
  const losses = given("training.losses").data as Float32Array;
  for (let i = 0; i < steps; i++) {
    const { loss, mse, fecl } = await step.run(batch);
    check(`loss of step ${i + 1}`, relativeDifference(loss, losses[3 * i]!), 1e-5);
    check(`mse of step ${i + 1}`, relativeDifference(mse!, losses[3 * i + 1]!), 1e-5);
    check(
      `consistency loss of step ${i + 1}`,
      relativeDifference(fecl!, losses[3 * i + 2]!),
      CONSISTENCY_LIMIT[device],
    );
  }
  const worst = (state: Map<string, Tensor>, expected: (key: string) => Tensor | undefined): number =>
    Math.max(...[...state].map(([key, value]) => distance(value, expected(key))));
  const gradients = held!.stateDict();
  check(
    `gradients, worst of ${gradients.size}`,
    worst(gradients, (key) => given(`grad.${key}`)),
    2e-3,
  );
  if (steps === REFERENCE_STEPS) {
    const { tensors } = await reference("unet-sd15/adapters_trained.safetensors");
    const state = fera.stateDict();
    check(
      `trained adapters, worst of ${state.size}`,
      worst(state, (key) => tensors.get(key)),
      2e-3,
    );
  }
  await step.release();
  await release();
  return checks;
}

/** The reference's own `.pt`, fetched by its URL. */
async function torchFile(device: Device): Promise<Check[]> {
  const unet = await UNet2DConditionModel.fromPretrained("/reference/unet-sd15", { subfolder: "unet", device });
  const fera = new FeRAModel(unet, FeRAConfig.reference());
  await fera.loadAdapters("/reference/unet-sd15/fera_output.pt");
  const { tensors } = await reference("unet-sd15/adapters_trained.safetensors");
  const state = [...fera.stateDict()];
  const errors = state.map(([key, value]) => distance(value, tensors.get(key)));
  return [{ what: `the ${state.length} tensors of fera_output.pt`, error: Math.max(...errors), limit: 1e-12 }];
}

/** An image through a canvas and through files, and back. */
async function images(): Promise<Check[]> {
  const [width, height] = [6, 4];
  const data = Uint8Array.from({ length: 3 * width * height }, (_, i) => (37 * i) % 256);
  const image = ImageTensor.fromPixels({ width, height, data });
  const pixelsOf = (source: CanvasImageSource): Uint8Array => {
    const context = new OffscreenCanvas(width, height).getContext("2d")!;
    context.drawImage(source, 0, 0);
    return ImageTensor.fromPixels(context.getImageData(0, 0, width, height)).toRgb().data;
  };
  const checks: Check[] = [];
  const check = (what: string, source: CanvasImageSource, limit: number) =>
    checks.push({ what, error: relativeError(Float32Array.from(pixelsOf(source)), Float32Array.from(data)), limit });
  check("canvas", image.toCanvas(), 1e-9);
  check("PNG", await createImageBitmap(await image.toBlob()), 1e-9);
  check("WebP", await createImageBitmap(await image.toBlob("image/webp")), 1e-9);
  check("JPEG", await createImageBitmap(await image.toBlob("image/jpeg", { quality: 0.9 })), 0.5);
  const refusals = await Promise.allSettled([image.save("picture.png"), image.toSharp()]);
  const isRefused = refusals.every(({ status }) => status === "rejected");
  checks.push({ what: "a worker saves no file and has no sharp", error: isRefused ? 0 : 1, limit: 1 });
  return checks;
}

async function bytes(path: string): Promise<Uint8Array> {
  const response = await fetch(`/reference/${path}`);
  if (!response.ok) throw new Error(`/reference/${path}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

const reference = async (path: string) => decodeSafetensors(await bytes(path), path);

const distance = (computed: Tensor, expected: Tensor | undefined): number =>
  relativeError(computed.data as Float32Array, expected!.data as Float32Array);

const relativeDifference = (a: number, b: number): number => Math.abs(a - b) / Math.abs(b);
