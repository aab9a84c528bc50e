// LoKr and LoHa as files: one in the names of LyCORIS, text encoders included, or PEFT's folder.

import { ConfigError } from "../../errors.js";
import { encodeSafetensors } from "../../storage/safetensors.js";
import { writeFileAt } from "../../storage/storage.js";
import { encodeTorch } from "../../storage/torch.js";
import type { AdapterConfig } from "../adapter.js";
import { writeAdapterFolder } from "../adapter-folder.js";
import type { AdapterPart, TextEncoderName } from "../loaded-adapter.js";
import type { TextEncoderParts } from "../text-encoder-parts.js";
import { type LycorisNames, type LycorisPart, lycorisMetadata, lycorisTensors, peftFolder } from "./write-lycoris.js";

/** Metadata's key of the configuration of kinds that fera writes in others' names or its own; its kind is among it. */
export const ADAPTER_CONFIG_KEY = "fera_adapter_config";

/** A configuration with its kind, as metadata. */
export const withKind = (config: AdapterConfig): Record<string, string> => ({
  [ADAPTER_CONFIG_KEY]: JSON.stringify({ adapter_type: config.adapterType, ...config.toJSON() }),
});

/**
 * Writes a LoKr or LoHa in the names of LyCORIS, as one file, or of PEFT, as a folder.
 *
 * @throws {ConfigError} If kohya has no name for a layer, or PEFT would make tensors of other shapes.
 * @throws {FormatError} If two layers would get the same name, or a file cannot be written.
 */
export async function writeLycoris(
  path: string,
  part: LycorisPart,
  names: "kohya" | "peft",
  options: LycorisNames & { textEncoders?: ReadonlyMap<TextEncoderName, AdapterPart> | undefined } = {},
): Promise<void> {
  const { textEncoders = new Map<TextEncoderName, AdapterPart>() } = options;
  if (names === "peft") {
    if (textEncoders.size > 0) {
      throw new ConfigError(`${path}: PEFT's folder is for one model; it cannot also hold layers of text encoders.`);
    }
    const { bytes, json } = peftFolder(part, { format: "pt", ...withKind(part.config) });
    return writeAdapterFolder(path, bytes, json);
  }
  const tensors = lycorisTensors(part, path, options, kohyaParts(textEncoders));
  if (/\.(pt|pth)$/i.test(path)) return writeFileAt(path, encodeTorch(tensors, path));
  const metadata = { format: "pt", ...lycorisMetadata(part), ...withKind(part.config) };
  return writeFileAt(path, encodeSafetensors(tensors, metadata));
}

/** Parts for text encoders by the beginning of kohya's names. */
export function kohyaParts(textEncoders: TextEncoderParts): Map<string, LycorisPart> {
  const isXl = textEncoders.has("text_encoder_2");
  return new Map(
    [...textEncoders].map(([encoder, own]) => [
      encoder === "text_encoder_2" ? "lora_te2" : isXl ? "lora_te1" : "lora_te",
      own as LycorisPart,
    ]),
  );
}
