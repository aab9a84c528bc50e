// ComfyUI's "prompt" of an image: the graph of nodes that made it, as its API takes it. Written, and read where it has the
// plain shape: a checkpoint, adapters, two texts, empty latents, one sampler.

import { isObject } from "../../storage/json.js";
import { SAMPLERS, type SamplerName, samplerNamed } from "./sampler-names.js";
import { type AdapterSetting, type FoundSettings, type GenerationSettings, parsedJson } from "./settings.js";

interface GraphNode {
  class_type: string;
  inputs: Record<string, unknown>;
}

type NodeGraph = Record<string, GraphNode>;

/** Output `index` of a node. */
type Link = [node: string, index: number];

/** ComfyUI's names of how steps are spread, by A1111's in lower case. */
const SPREADS: Readonly<Record<string, string>> = {
  karras: "karras",
  exponential: "exponential",
  beta: "beta",
  simple: "simple",
  "sgm uniform": "sgm_uniform",
  ddim: "ddim_uniform",
};

/**
 * The graph that makes such an image; its sampler and files have ComfyUI's names. What the settings leave out has the
 * default of ComfyUI's nodes.
 */
export function comfyGraph(settings: GenerationSettings): NodeGraph {
  const { prompt, negativePrompt = "", adapters = [], sampler = "euler", scheduleType, batch } = settings;
  const graph: NodeGraph = {};
  let count = 0;
  const add = (class_type: string, inputs: Record<string, unknown>): string => {
    const id = String(++count);
    graph[id] = { class_type, inputs };
    return id;
  };
  const checkpoint = add("CheckpointLoaderSimple", { ckpt_name: settings.model ?? "" });
  let model: Link = [checkpoint, 0];
  let clip: Link = [checkpoint, 1];
  for (const { name, scale } of adapters) {
    const strengths = { strength_model: scale, strength_clip: scale };
    const loader = add("LoraLoader", { model, clip, lora_name: name, ...strengths });
    model = [loader, 0];
    clip = [loader, 1];
  }
  if (settings.clipSkip) clip = [add("CLIPSetLastLayer", { clip, stop_at_clip_layer: -1 - settings.clipSkip }), 0];
  const positive: Link = [add("CLIPTextEncode", { clip, text: prompt }), 0];
  const negative: Link = [add("CLIPTextEncode", { clip, text: negativePrompt }), 0];
  let latent: string;
  if (settings.startImage === undefined) {
    const { width = 512, height = 512 } = settings;
    latent = add("EmptyLatentImage", { width, height, batch_size: batch?.size ?? 1 });
  } else {
    const pixels = add("LoadImage", { image: settings.startImage });
    latent = add("VAEEncode", { pixels: [pixels, 0], vae: [checkpoint, 2] });
  }
  const samples = add("KSampler", {
    model,
    seed: settings.seed ?? 0,
    steps: settings.steps ?? 20,
    cfg: settings.guidanceScale ?? 8,
    sampler_name: SAMPLERS[sampler as SamplerName]?.comfyUI ?? sampler,
    scheduler: scheduleType === undefined ? "normal" : (SPREADS[scheduleType.toLowerCase()] ?? scheduleType),
    positive,
    negative,
    latent_image: [latent, 0],
    denoise: settings.startImage === undefined ? 1 : (settings.strength ?? 1),
  });
  const image = add("VAEDecode", { samples: [samples, 0], vae: [checkpoint, 2] });
  add("SaveImage", { images: [image, 0], filename_prefix: "fera" });
  return graph;
}

/** Nodes that are understood, or do not change the image. */
const UNDERSTOOD = new Set([
  ...["CheckpointLoaderSimple", "LoraLoader", "LoraLoaderModelOnly", "CLIPTextEncode", "CLIPSetLastLayer"],
  ...["EmptyLatentImage", "EmptySD3LatentImage", "KSampler", "VAEDecode", "SaveImage", "PreviewImage"],
  ...["LoadImage", "VAEEncode", "VAELoader"],
]);

/** Adapters in a row: no graph of a person has more, and one that goes in circles ends. */
const MOST_IN_A_ROW = 64;

/**
 * Reads a graph. What is no text or number in it but another node's output is told among `others`, and so are nodes that
 * are not understood.
 *
 * @returns Undefined where the text is no graph.
 */
export function parseComfyGraph(text: string): FoundSettings | undefined {
  const graph = parsedJson(text);
  if (!isGraph(graph)) return undefined;
  const nodes = Object.values(graph);
  const strange = [...new Set(nodes.map((node) => node.class_type))].filter((type) => !UNDERSTOOD.has(type));
  const others = strange.map((type) => `node ${type}`);
  const settings: GenerationSettings = { prompt: "" };
  const [sampler, ...further] = nodes.filter(({ class_type }) => class_type === "KSampler");
  if (!sampler) return { format: "comfyui", settings, others: ["a graph without a KSampler", ...others] };
  if (further.length > 0) others.push(`${further.length} more of the node KSampler`);

  const take = (
    name: keyof GenerationSettings,
    { inputs, class_type }: GraphNode,
    input: string,
    type: "number" | "string",
  ) => {
    const value = inputs[input];
    if (value === undefined) return;
    const isRight = type === "number" ? typeof value === "number" : typeof value === "string";
    if (isRight) Object.assign(settings, { [name]: value });
    else others.push(`${input} of the node ${class_type}, which another node gives`);
  };
  const at = (link: unknown): GraphNode | undefined =>
    Array.isArray(link) && typeof link[0] === "string" && Object.hasOwn(graph, link[0]) ? graph[link[0]] : undefined;

  // 1. The sampler's own numbers
  take("seed", sampler, "seed", "number");
  take("steps", sampler, "steps", "number");
  take("guidanceScale", sampler, "cfg", "number");
  const { sampler_name: named, scheduler: spread, denoise } = sampler.inputs;
  const known = typeof named === "string" ? samplerNamed(named) : undefined;
  if (known) settings.sampler = known;
  else if (named !== undefined) others.push(`sampler: ${String(named).slice(0, 80)}`);
  if (typeof spread === "string" && spread !== "normal") settings.scheduleType = spreadNamed(spread);

  // 2. Both texts
  const positive = textAt(at, sampler.inputs.positive);
  const negative = textAt(at, sampler.inputs.negative);
  if (positive) take("prompt", positive, "text", "string");
  else others.push("a prompt that several nodes make");
  if (negative) take("negativePrompt", negative, "text", "string");
  if (settings.negativePrompt === "") delete settings.negativePrompt;

  // 3. From the sampler back to the checkpoint, adapters on the way
  const adapters: AdapterSetting[] = [];
  let loader = at(sampler.inputs.model);
  for (let i = 0; i < MOST_IN_A_ROW && loader?.class_type.startsWith("LoraLoader"); i++) {
    const { lora_name: name, strength_model: scale = 1 } = loader.inputs;
    if (typeof name === "string" && typeof scale === "number") adapters.unshift({ name, scale });
    else others.push("an adapter that another node chooses");
    loader = at(loader.inputs.model);
  }
  if (adapters.length > 0) settings.adapters = adapters;
  if (loader?.class_type === "CheckpointLoaderSimple") take("model", loader, "ckpt_name", "string");
  const clip = nodes.find(({ class_type }) => class_type === "CLIPSetLastLayer")?.inputs.stop_at_clip_layer;
  if (typeof clip === "number" && clip < -1) settings.clipSkip = -1 - clip;

  // 4. What it began from
  const latent = at(sampler.inputs.latent_image);
  if (latent && /^Empty.*LatentImage$/.test(latent.class_type)) {
    take("width", latent, "width", "number");
    take("height", latent, "height", "number");
    const { batch_size: size } = latent.inputs;
    if (typeof size === "number" && size > 1) settings.batch = { size, position: 0 };
  } else if (latent?.class_type === "VAEEncode") {
    const image = at(latent.inputs.pixels);
    if (image?.class_type === "LoadImage") take("startImage", image, "image", "string");
    if (typeof denoise === "number") settings.strength = denoise;
  }
  return { format: "comfyui", settings, others };
}

function textAt(at: (link: unknown) => GraphNode | undefined, link: unknown): GraphNode | undefined {
  const node = at(link);
  return node?.class_type === "CLIPTextEncode" ? node : undefined;
}

function spreadNamed(spread: string): string {
  const name = Object.keys(SPREADS).find((key) => SPREADS[key] === spread) ?? spread;
  return name.charAt(0).toUpperCase() + name.slice(1);
}

function isGraph(value: unknown): value is NodeGraph {
  if (!isObject(value)) return false;
  const nodes = Object.values(value);
  return (
    nodes.length > 0 &&
    nodes.every((node) => isObject(node) && typeof node.class_type === "string" && isObject(node.inputs))
  );
}
