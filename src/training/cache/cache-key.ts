// What an entry of the cache depends on, as its key. Node only.

import { createHash } from "node:crypto";
import type { Tilings } from "../../models/autoencoder-kl/autoencoder-tiling.js";
import type { ModelWeights } from "../../nn/index.js";
import { weightsHash } from "../identity.js";

/** Raised when images or captions are encoded otherwise than before. */
const ENCODING = 1;

/** The key of what is made from these parts: SHA-256 of their JSON, in hexadecimal digits. */
export const entryKey = (...parts: readonly unknown[]): string =>
  createHash("sha256").update(JSON.stringify(parts)).digest("hex");

/** The key of models that encode: their weights and configurations, how this version uses them, and in which tiles. */
export async function encoderKey(
  models: readonly { weights: ModelWeights; config: unknown; tilings?: Tilings }[],
  signal?: AbortSignal,
): Promise<string> {
  const parts: unknown[] = [ENCODING];
  for (const { weights, config, tilings } of models) {
    parts.push(await weightsHash(weights, signal), config);
    if (tilings?.encode) parts.push(tilings.encode);
  }
  return entryKey(...parts);
}
