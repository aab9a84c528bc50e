// What an entry of the cache depends on, as its key. Node only.

import { createHash } from "node:crypto";
import type { ModelWeights } from "../../nn/index.js";
import { weightsHash } from "../identity.js";

/** Raised when images or captions are encoded otherwise than before. */
const ENCODING = 1;

/** The key of what is made from these parts: SHA-256 of their JSON, in hexadecimal digits. */
export const entryKey = (...parts: readonly unknown[]): string =>
  createHash("sha256").update(JSON.stringify(parts)).digest("hex");

/** The key of models that encode: their weights and configurations, and how this version uses them. */
export async function encoderKey(
  models: readonly { weights: ModelWeights; config: unknown }[],
  signal?: AbortSignal,
): Promise<string> {
  const parts: unknown[] = [ENCODING];
  for (const { weights, config } of models) parts.push(await weightsHash(weights, signal), config);
  return entryKey(...parts);
}
