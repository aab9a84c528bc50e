// Text encoders' parts in files of kinds that only fera has: FeRA and T-LoRA. In others' formats they have others' names.

import { ConfigError, FormatError, quoted } from "../errors.js";
import { isObject, parseJson } from "../storage/json.js";
import type { Tensor } from "../tensor/tensor.js";
import { floatState } from "./float-state.js";
import type { AdapterPart, TextEncoderName } from "./loaded-adapter.js";
import { LoRAAdapter } from "./lora/lora-adapter.js";
import { LoRAConfig } from "./lora/lora-config.js";

/** Metadata's key of the parts' configurations, by the encoder's name. */
const TEXT_ENCODERS_KEY = "fera_text_encoders";
const NAMES = ["text_encoder", "text_encoder_2"] as const satisfies readonly TextEncoderName[];

/** Parts by the encoder. */
export type TextEncoderParts = ReadonlyMap<TextEncoderName, AdapterPart>;

/** The tensors, `text_encoder.PATH.lora_A.weight` as diffusers names them, and their configurations as metadata. */
export function textEncoderTensors(parts: TextEncoderParts = new Map()): {
  tensors: Map<string, Tensor<"float32">>;
  metadata: Record<string, string>;
} {
  if (parts.size === 0) return { tensors: new Map(), metadata: {} };
  const tensors = [...parts].flatMap(([encoder, { state }]) =>
    [...state].map(([name, value]): [string, Tensor<"float32">] => [`${encoder}.${name}`, value]),
  );
  const configs = [...parts].map(([encoder, { config }]) => [
    encoder,
    { adapter_type: config.adapterType, ...config.toJSON() },
  ]);
  return {
    tensors: new Map(tensors),
    metadata: { [TEXT_ENCODERS_KEY]: JSON.stringify(Object.fromEntries(configs)) },
  };
}

/**
 * Parts the tensors of text encoders from a file's others.
 *
 * @returns All tensors as `rest`, and no parts, where the file's metadata say nothing of any.
 * @throws {FormatError} If a configuration has no tensors, or these do not fit it.
 */
export function splitTextEncoders(
  tensors: ReadonlyMap<string, Tensor>,
  metadata: Readonly<Record<string, string>>,
  source: string,
): { rest: ReadonlyMap<string, Tensor>; textEncoders?: Map<TextEncoderName, AdapterPart> } {
  const text = metadata[TEXT_ENCODERS_KEY];
  if (text === undefined) return { rest: tensors };
  const where = `${source} (metadata ${TEXT_ENCODERS_KEY})`;
  const configs = parseJson(new TextEncoder().encode(text), where);
  if (!isObject(configs)) throw new FormatError(where, "must be a JSON object.");
  const rest = new Map(tensors);
  const textEncoders = new Map<TextEncoderName, AdapterPart>();
  for (const [name, json] of Object.entries(configs)) {
    const encoder = NAMES.find((each) => each === name);
    if (!encoder || !isObject(json)) throw new FormatError(where, `knows no text encoder ${quoted(name)}.`);
    const { adapter_type: type, ...options } = json;
    if (type !== "lora") throw new FormatError(where, `adapter_type must be "lora"; got ${quoted(type)}.`);
    const config = LoRAConfig.fromJSON(options, where);
    const own = new Map<string, Tensor>();
    for (const [key, value] of tensors) {
      if (!key.startsWith(`${encoder}.`)) continue;
      own.set(key.slice(encoder.length + 1), value);
      rest.delete(key);
    }
    const { layers } = new LoRAAdapter(config, []).withLayersOf(own, source);
    textEncoders.set(encoder, { config, layers, state: floatState(own, source) });
  }
  return { rest, textEncoders };
}

/** @throws {ConfigError} If a part is of another kind. */
export function loraParts(parts: TextEncoderParts, of: (part: AdapterPart) => LoRAConfig | undefined, source: string) {
  return new Map(
    [...parts].map(([encoder, part]): [TextEncoderName, AdapterPart<LoRAConfig>] => {
      const config = of(part);
      if (config) return [encoder, { ...part, config }];
      throw new ConfigError(`${source}: the part for ${encoder} must be LoRA, too; got ${part.config.adapterType}.`);
    }),
  );
}
