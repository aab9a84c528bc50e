// Single files of transformers under flow matching in the original code's names: what such a file holds, and where. A transformer
// alone, or, as ComfyUI packs them, with text encoders and an autoencoder beside it.

import { FormatError } from "../../errors.js";
import type { FlowFamily } from "../../storage/flow-names.js";
import { quote } from "../../storage/json.js";
import { isBesideModels } from "../harmless-weights.js";

/** A model of such a file. */
interface FlowPart {
  /** As transformers or diffusers call it. */
  className: string;
  /** In front of its names; the first that occurs. */
  prefixes: readonly string[];
}

/** The families in words; 3.5 is one of "Stable Diffusion 3". */
export type FlowWords = "Stable Diffusion 3" | "FLUX.1" | "FLUX.2" | "Z-Image";

interface FlowKind {
  family: FlowFamily;
  words: FlowWords;
  /** A tensor that only this family has, behind the transformer's prefix. */
  sign: RegExp;
  /** By folders in diffusers' layout; the transformer stands apart. */
  parts: Readonly<Record<string, FlowPart>>;
}

const MODEL = "model.diffusion_model.";
const AUTOENCODER: FlowPart = { className: "AutoencoderKL", prefixes: ["first_stage_model.", "vae."] };
const encoder = (className: string, name: string): FlowPart => ({
  className,
  prefixes: [`text_encoders.${name}.transformer.`],
});

const KINDS: readonly FlowKind[] = [
  { family: "Flux2Transformer2DModel", words: "FLUX.2", sign: /^double_stream_modulation_img\.lin\./, parts: {} },
  {
    family: "FluxTransformer2DModel",
    words: "FLUX.1",
    sign: /^double_blocks\.\d+\.img_mod\.lin\./,
    parts: {
      vae: AUTOENCODER,
      text_encoder: encoder("CLIPTextModel", "clip_l"),
      text_encoder_2: encoder("T5EncoderModel", "t5xxl"),
    },
  },
  {
    family: "SD3Transformer2DModel",
    words: "Stable Diffusion 3",
    sign: /^joint_blocks\.\d+\.x_block\./,
    parts: {
      vae: AUTOENCODER,
      text_encoder: encoder("CLIPTextModelWithProjection", "clip_l"),
      text_encoder_2: encoder("CLIPTextModelWithProjection", "clip_g"),
      text_encoder_3: encoder("T5EncoderModel", "t5xxl"),
    },
  },
  {
    family: "ZImageTransformer2DModel",
    words: "Z-Image",
    // Lumina 2, which has the same blocks, has no layer 0 there.
    sign: /^layers\.\d+\.adaLN_modulation\.0\./,
    parts: { vae: AUTOENCODER, text_encoder: encoder("Qwen3Model", "qwen3_4b") },
  },
];

/** What ComfyUI writes beside an encoder's weights, and what no encoder computes with. */
const BESIDE_ENCODERS = /^text_encoders\.\w+\.(logit_scale|spiece_model|tokenizer_json)$/;

/** What a single file of such a family holds. */
export interface FlowLayout {
  family: FlowFamily;
  words: FlowWords;
  /** The models that it holds, by their folders in diffusers' layout, with the class of each and what its names begin with. */
  parts: ReadonlyMap<string, { className: string; prefix: string }>;
  /** Folders of models that a pipeline of the family has besides. */
  lacks: readonly string[];
}

/** By the tensors' names; undefined for files of other families. */
export function flowLayoutOf(names: readonly string[]): FlowLayout | undefined {
  for (const prefix of [MODEL, ""]) {
    const own = names.filter((name) => name.startsWith(prefix)).map((name) => name.slice(prefix.length));
    const kind = KINDS.find(({ sign }) => own.some((name) => sign.test(name)));
    if (!kind) continue;
    const parts = new Map([["transformer", { className: kind.family as string, prefix }]]);
    const lacks: string[] = [];
    for (const [folder, { className, prefixes }] of Object.entries(kind.parts)) {
      const found = prefixes.find((each) => names.some((name) => name.startsWith(each)));
      if (found === undefined) lacks.push(folder);
      else parts.set(folder, { className, prefix: found });
    }
    if (kind.family === "Flux2Transformer2DModel") lacks.push("vae", "text_encoder");
    return { family: kind.family, words: kind.words, parts, lacks };
  }
  return undefined;
}

/** Whether a tensor is one of the part's: without a prefix, the transformer's are those that no other part has. */
export function partHas({ parts }: FlowLayout, folder: string): (name: string) => boolean {
  const own = parts.get(folder)!.prefix;
  if (own !== "") return (name) => name.startsWith(own);
  const others = [...parts.values()].map(({ prefix }) => prefix).filter((prefix) => prefix !== "");
  return (name) =>
    !BESIDE_ENCODERS.test(name) && !isBesideModels(name) && !others.some((each) => name.startsWith(each));
}

/** @throws {FormatError} If the file holds tensors of none of its models. */
export function checkFlowNames(names: readonly string[], layout: FlowLayout, path: string): void {
  const owners = [...layout.parts.keys()].map((folder) => partHas(layout, folder));
  const strange = names.filter(
    (name) => !isBesideModels(name) && !BESIDE_ENCODERS.test(name) && !owners.some((has) => has(name)),
  );
  if (strange.length === 0) return;
  const more = strange.length > 3 ? ` and ${strange.length - 3} more` : "";
  throw new FormatError(
    path,
    `holds tensors that are of no part of a ${layout.words} pipeline: ${strange.slice(0, 3).map(quote).join(", ")}${more}. ` +
      "Without them its results would be others.",
  );
}
