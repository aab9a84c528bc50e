// Weights that are kept in few bits: which they are, and how a file holds them. The numbers are in int8-weights.ts and
// nf4-weights.ts.

import type { FileRange } from "../graph/index.js";
import type { OpenedSafetensors, SafetensorsDType, SafetensorsEntry } from "../storage/safetensors.js";

/** Fewer rows or columns are not worth few bits, and are those of a network's first and last layers. */
const FEWEST = 32;
/** What tells a network its noise level, as diffusers' files and single files name it: one row, on which all depends. */
const CONDITIONING =
  /(^|\.)((time_|add_|class_|label_)?(embedding|emb|embed|emb_layers|emb_proj)|time_(text|guidance)_embed|t_embedder)\.|time_emb_proj/;
/** Into and out of a whole transformer. */
const ENDS = /^(x_embedder|context_embedder|cap_embedder|all_x_embedder|norm_out|proj_out|all_final_layer)\./;
/**
 * Into and out of a block's transformers, and past its convolutions: their errors add to the residual path. At Stable
 * Diffusion 1.5's size they made most of all layers' error together, and integers saved least there.
 */
const RESIDUAL = /\.(proj_in|proj_out|conv_shortcut|skip_connection)\./;
/** Rows of these are looked up, not multiplied; and what gives a language model's next token, which no encoder has. */
const TABLES = /(^|\.)(shared|embed_tokens|relative_attention_bias|lm_head)\.weight$/;
/** Of that name, but the only way out of a block: a fifth of FLUX.1. */
const WHOLE_BLOCK = /^single_transformer_blocks\.\d+\.proj_out\./;
/** In front of the shape, in the metadata of a file: the parts' shapes do not tell it. */
const SHAPE_KEY = "shape ";

/** Whether a weight is one of those that are kept in few bits. */
export function isLarge(name: string, shape: readonly number[]): boolean {
  const [out = 0, channels = 0] = shape;
  if (!name.endsWith(".weight") || CONDITIONING.test(name) || ENDS.test(name)) return false;
  if ((RESIDUAL.test(name) && !WHOLE_BLOCK.test(name)) || TABLES.test(name)) return false;
  return (shape.length === 2 || shape.length === 4) && out >= FEWEST && channels >= FEWEST;
}

/** One way to keep weights in few bits. */
export interface FewBits {
  /** What tells copies of one weight apart that are rounded differently; may be empty. */
  detail: string;
  /** Whether a weight of that shape can be kept so. */
  fits(shape: readonly number[]): boolean;
  /** What a weight is in a file: its first part under its own name. */
  tensors(
    name: string,
    shape: readonly number[],
  ): readonly { name: string; dtype: SafetensorsDType; shape: readonly number[] }[];
  /** The bytes of {@link FewBits.tensors}, in their order. */
  bytes(name: string, values: Float32Array, shape: readonly number[]): readonly Uint8Array[];
  /** How a weight's first part is to be read with the others. @param first - Its entry in the file. */
  stored(name: string, first: SafetensorsEntry, rangeOf: (name: string) => FileRange): NonNullable<FileRange["stored"]>;
}

/** What a file's metadata says of weights that it holds in few bits. */
export const shapeMetadata = (weights: Iterable<readonly [name: string, shape: readonly number[]]>) =>
  Object.fromEntries([...weights].map(([name, shape]) => [SHAPE_KEY + name, JSON.stringify(shape)]));

/** The weights of a file that holds them in few bits, by name. */
export function* fewBitWeights(
  kind: Pick<FewBits, "stored">,
  { path, entries, metadata }: Pick<OpenedSafetensors, "path" | "entries" | "metadata">,
): Generator<readonly [name: string, shape: readonly number[], range: FileRange]> {
  const rangeOf = (name: string): FileRange => {
    const { offset, length } = entries.get(name)!;
    return { path, offset, length };
  };
  for (const [key, text] of Object.entries(metadata)) {
    if (!key.startsWith(SHAPE_KEY)) continue;
    const name = key.slice(SHAPE_KEY.length);
    const stored = kind.stored(name, entries.get(name)!, rangeOf);
    yield [name, JSON.parse(text) as number[], { ...rangeOf(name), stored }];
  }
}
