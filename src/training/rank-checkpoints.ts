// Checkpoints of a training that several ranks do together: rank 0 reads and writes them, the others are sent them. Node only.

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { type RankGroup, rankName } from "../distributed/index.js";
import { TrainingError } from "../errors.js";
import { type Tensor, toBytes } from "../tensor/tensor.js";
import { type NewestCheckpoint, readCheckpoint, readNewestCheckpoint } from "./checkpoint.js";

/**
 * The newest checkpoint of a folder that only rank 0 need have.
 *
 * @throws As `readNewestCheckpoint`, on rank 0.
 */
export async function newestCheckpointOf(
  folder: string,
  ranks: RankGroup | undefined,
): Promise<NewestCheckpoint | undefined> {
  if (!ranks || ranks.size === 1) return readNewestCheckpoint(folder);
  if (ranks.rank === 0) {
    const newest = await readNewestCheckpoint(folder);
    await ranks.broadcast(new TextEncoder().encode(newest?.path ?? ""));
    if (newest) await ranks.broadcast(await readFile(newest.path));
    return newest;
  }
  const path = new TextDecoder().decode(await ranks.broadcast());
  if (path === "") return undefined;
  return { path, checkpoint: await readCheckpoint(path, await ranks.broadcast()), damaged: [] };
}

/**
 * Compares what the ranks have trained, which must be the same to the bit.
 *
 * @param when - For the message.
 * @throws {TrainingError} That names the ranks that differ from rank 0.
 */
export async function requireSameOnAll(
  ranks: RankGroup,
  parameters: ReadonlyMap<string, Tensor<"float32">>,
  when: string,
): Promise<void> {
  const hash = createHash("sha256");
  for (const tensor of parameters.values()) hash.update(toBytes(tensor));
  const hashes = await ranks.gather(hash.digest("hex"));
  const others = hashes.flatMap((other, rank) => (other === hashes[0] ? [] : [rankName(ranks, rank)]));
  if (others.length === 0) return;
  throw new TrainingError(
    `${when}: ${others.join(", ")} no longer has the same adapters as rank 0. Their processors or libraries compute ` +
      "differently; use hosts of one kind. Checkpoints that were written before are intact.",
  );
}
