// Whether the ranks of one training were started alike: version, options, model and data. Node only.

import { type AdapterConfig, FeRAConfig } from "../adapters/index.js";
import { isFirstOnHost, type RankGroup, rankName } from "../distributed/index.js";
import { ConfigError, TrainingError } from "../errors.js";
import { type Engine, LIBRARY_VERSION } from "./engine.js";
import { fingerprintChanges } from "./fingerprint.js";
import { type DatasetIdentity, datasetChanges } from "./identity.js";

/** Where things lie on a host, and how its memory suffices: these may differ. */
const OWN_OPTIONS: ReadonlySet<string> = new Set(["cacheDir", "memoryLimit", "gradientCheckpointing"]);

/** Most differences that a message names. */
const NAMED = 3;

/** What a rank trains. */
export interface RankTraining {
  fingerprint: string;
  identity: DatasetIdentity;
  /** Of all options, those that change no number included: they say when ranks wait for each other. */
  values: Readonly<Record<string, unknown>>;
  engine: Engine;
}

/**
 * Compares what the ranks are about to train.
 *
 * @throws {TrainingError} On every rank, that names the ranks and what of theirs differs from rank 0.
 */
export async function requireAgreement(ranks: RankGroup, own: RankTraining): Promise<void> {
  if (ranks.size === 1) return;
  const { fingerprint, identity, values, engine } = own;
  const told = Object.entries(values).filter(([name]) => !OWN_OPTIONS.has(name));
  // A data set's identity is long where it has many images; its hash is in the fingerprint.
  const all = await ranks.gather(
    JSON.stringify({ fera: LIBRARY_VERSION, fingerprint, values: Object.fromEntries(told) }),
  );
  const engines = await ranks.gather(JSON.stringify(engine["ONNX Runtime"]));
  if (all.every((one) => one === all[0]) && engines.every((one) => one === engines[0])) return;
  const identities = (await ranks.gather(JSON.stringify(identity))).map((text) => JSON.parse(text) as DatasetIdentity);
  const parsed = all.map((text) => JSON.parse(text) as { fera: string; fingerprint: string; values: object });
  const [first] = parsed;
  const problems = parsed.flatMap((other, rank) => {
    const changes = [
      ...(other.fera === first!.fera ? [] : [`fera is ${other.fera}, not ${first!.fera}`]),
      ...(engines[rank] === engines[0] ? [] : [`ONNX Runtime is ${engines[rank]}, not ${engines[0]}`]),
      ...fingerprintChanges(first!.fingerprint, other.fingerprint, datasetChanges(identities[0]!, identities[rank]!)),
      ...fingerprintChanges(JSON.stringify(first!.values), JSON.stringify(other.values)),
    ];
    const unique = [...new Set(changes)];
    const more = unique.length > NAMED ? `; and ${unique.length - NAMED} more` : "";
    return unique.length === 0 ? [] : [`${rankName(ranks, rank)}: ${unique.slice(0, NAMED).join("; ")}${more}`];
  });
  throw new TrainingError(
    `ranks were started differently. Beside rank 0 (“was”), ${problems.join(". ")}. ` +
      "Give all the same version, model, data and options.",
  );
}

/**
 * How many samples of a batch each rank computes.
 *
 * @throws {ConfigError} If they cannot be equally many.
 */
export function samplesPerRank(batchSize: number, ranks: RankGroup | undefined): number {
  const size = ranks?.size ?? 1;
  if (batchSize % size === 0) return batchSize / size;
  const above = Math.ceil(batchSize / size) * size;
  throw new ConfigError(
    `batchSize counts the images of all ranks together and must be a multiple of their number, ${size}; got ${batchSize}. ` +
      `Take ${above}, or another number of ranks.`,
  );
}

/**
 * Refuses what is no mean over samples, and would be another training where a batch is divided.
 *
 * @throws {ConfigError} That names the option.
 */
export function refuseWholeBatchLosses(config: AdapterConfig, ranks: RankGroup | undefined): void {
  if (!ranks || ranks.size === 1 || !(config instanceof FeRAConfig) || config.balanceWeight === 0) return;
  throw new ConfigError(
    `balanceWeight ${config.balanceWeight}: its loss is of the whole batch's gates, of which ${ranks.size} ranks see a part each. ` +
      "Leave it out, or train on one rank.",
  );
}

/** Does something on one rank of each host first, and then on the others: they find in the cache what it has made. */
export async function firstOnEachHost<T>(ranks: RankGroup | undefined, work: () => Promise<T>): Promise<T> {
  if (!ranks || ranks.size === 1) return work();
  if (!isFirstOnHost(ranks)) {
    await ranks.barrier();
    return work();
  }
  const result = await work();
  await ranks.barrier();
  return result;
}
