// Files of textual inversion: vectors that a token means, as diffusers, A1111 and ComfyUI keep them.

import { FormatError, quoted } from "../errors.js";
import { decodeSafetensors, encodeSafetensors } from "../storage/safetensors.js";
import { readFileAt, writeFileAt } from "../storage/storage.js";
import { decodeTorchDict } from "../storage/torch.js";
import { float16ToFloat32 } from "../tensor/float16.js";
import { allFinite, Tensor } from "../tensor/tensor.js";

/** Most vectors of a token; prompts have 75 places. */
const MOST_VECTORS = 75;
/** SDXL's keys of A1111, ComfyUI and diffusers, in the order of the text encoders. */
const XL_KEYS = ["clip_l", "clip_g"] as const;
/** A1111's keys: of a `.pt`, and of a `.safetensors`. */
const A1111_DICT = "string_to_param";
const A1111_KEY = "emb_params";
/** Metadata's key of the token in files whose form has no place for it. */
const TOKEN_KEY = "fera_token";

/** A token's vectors. */
export interface TokenEmbedding {
  /** Undefined where the file does not say: A1111 takes the file's name. */
  token: string | undefined;
  /** For each text encoder `[N, C]`. */
  vectors: readonly Tensor<"float32">[];
}

/**
 * Reads a token's vectors: diffusers' `{ TOKEN: [C] or [N, C] }`, A1111's `string_to_param` (`.pt`) or `emb_params`, SDXL's
 * `clip_l` and `clip_g`.
 *
 * @param file - A path, or the bytes of a `.safetensors`, `.pt` or `.bin` file.
 * @throws {FormatError} If it is none of these, or damaged.
 */
export async function readTokenEmbedding(file: string | Uint8Array): Promise<TokenEmbedding> {
  const source = typeof file === "string" ? file : "embedding data";
  const bytes = typeof file === "string" ? await readFileAt(file) : file;
  const isZip = bytes[0] === 0x50 && bytes[1] === 0x4b;
  const { entries, metadata } = isZip ? torchEntries(bytes, source) : safetensorsEntries(bytes, source);
  const isXl = XL_KEYS.every((key) => entries.has(key));
  if (isXl) {
    const vectors = XL_KEYS.map((key) => checked(key, entries.get(key), source));
    if (vectors[0]!.shape[0] === vectors[1]!.shape[0]) return { token: metadata[TOKEN_KEY], vectors };
    throw new FormatError(source, "clip_l and clip_g must have as many vectors as each other.");
  }
  const [first] = entries;
  if (entries.size !== 1 || !first) {
    const names = [...entries.keys()].slice(0, 3).map(quoted);
    throw new FormatError(
      source,
      `is no embedding of a token: it must hold one tensor (diffusers, A1111) or clip_l and clip_g; ` +
        `it holds ${entries.size === 0 ? "none" : names.join(", ")}.`,
    );
  }
  const [name, value] = first;
  const isNameless = name === A1111_KEY || name === "*";
  return { token: isNameless ? undefined : name, vectors: [checked(name, value, source)] };
}

/**
 * Writes a token's vectors as diffusers' `learned_embeds.safetensors`; for SDXL as `clip_l` and `clip_g`, with the token in
 * the metadata.
 *
 * @throws {FormatError} If the file cannot be written.
 */
export async function writeTokenEmbedding(path: string, { token = "", vectors }: TokenEmbedding): Promise<void> {
  const [first, second] = vectors as [Tensor<"float32">, Tensor<"float32">?];
  const tensors = second ? { clip_l: first, clip_g: second } : { [token]: first };
  await writeFileAt(path, encodeSafetensors(tensors, { format: "pt", [TOKEN_KEY]: token }));
}

interface Entries {
  entries: ReadonlyMap<string, unknown>;
  metadata: Readonly<Record<string, string>>;
}

function safetensorsEntries(bytes: Uint8Array, source: string): Entries {
  const { tensors, metadata } = decodeSafetensors(bytes, source);
  return { entries: tensors, metadata };
}

/** A1111's file has the vectors among much else. */
function torchEntries(bytes: Uint8Array, source: string): Entries {
  const dict = decodeTorchDict(bytes, source);
  const parameters = dict.get(A1111_DICT);
  const entries = parameters instanceof Map ? parameters : dict;
  for (const key of entries.keys()) {
    if (typeof key !== "string") throw new FormatError(source, "is no embedding of a token: a key is no text.");
  }
  return { entries: entries as Map<string, unknown>, metadata: {} };
}

function checked(name: string, value: unknown, source: string): Tensor<"float32"> {
  const isVectors =
    value instanceof Tensor &&
    /^float(32|16)$/.test(value.dtype) &&
    [1, 2].includes(value.shape.length) &&
    value.size > 0;
  if (!isVectors) {
    const came = value instanceof Tensor ? `${value.dtype}[${value.shape.join(",")}]` : "no tensor";
    throw new FormatError(source, `${quoted(name)} must be vectors, float32 or float16 [C] or [N,C]; got ${came}.`);
  }
  const [rows, features] = value.shape.length === 1 ? [1, value.size] : (value.shape as [number, number]);
  if (rows > MOST_VECTORS) {
    throw new FormatError(source, `${quoted(name)} must have ${MOST_VECTORS} vectors at most; got ${rows}.`);
  }
  const data =
    value.dtype === "float16" ? float16ToFloat32(value.data as Uint16Array) : (value.data as Float32Array).slice();
  if (!allFinite(data)) throw new FormatError(source, `${quoted(name)} holds values that are not finite.`);
  return new Tensor("float32", [rows, features], data);
}
