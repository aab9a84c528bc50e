// Token ids that a text encoder is given, checked.

import { ShapeError } from "../errors.js";
import type { Tensor } from "../tensor/tensor.js";

/**
 * @param where - The method, for messages.
 * @param vocabulary - How many ids there are.
 * @throws {ShapeError} If ids are not int64 `[B, L]` with at least one token, or one is not in 0 … `vocabulary` − 1.
 */
export function checkedTokenIds(where: string, inputIds: Tensor, vocabulary: number): Tensor<"int64"> {
  const { shape, dtype } = inputIds;
  if (dtype !== "int64" || shape.length !== 2 || shape[1]! < 1) {
    throw new ShapeError(`${where}: inputIds must be int64 [B, L]; got ${dtype}[${shape.join(",")}].`);
  }
  const ids = inputIds as Tensor<"int64">;
  const wrong = ids.data.find((id) => id < 0n || id >= vocabulary);
  if (wrong === undefined) return ids;
  throw new ShapeError(
    `${where}: ids must be in 0 … ${vocabulary - 1} (vocab_size); got ${wrong}. ` +
      "Use the tokenizer that came with this model.",
  );
}
