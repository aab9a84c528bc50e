// The processes of one training on the command line: joining them, telling things once, and ending all where one fails.

import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import type { Command } from "commander";
import { joinMpi, type RankGroup, rankName } from "../distributed/index.js";
import { DISTRIBUTED_OPTIONS } from "../training/options/distributed-options.js";
import { type OptionLayer, readOptions } from "./options.js";
import { printError } from "./printable.js";

/** Rank 0 says first what all ranks would say. */
const OTHERS_WAIT_MS = 1000;
/** In which what went wrong is printed. */
const LAST_WORDS_MS = 100;

/** The ranks of `--distributed`; undefined without it. @throws {UsageError} If its options have values that they cannot have. */
export async function joinedRanks(command: Command, given: readonly OptionLayer[]): Promise<RankGroup | undefined> {
  const own = Object.keys(DISTRIBUTED_OPTIONS);
  const layers = given.map(({ source, values }) => ({
    ...(source !== undefined && { source }),
    values: Object.fromEntries(own.map((name) => [name, values[name]])),
  }));
  const { distributed, distributedTimeout } = await readOptions(command, DISTRIBUTED_OPTIONS, layers, []);
  if (distributed === undefined) return undefined;
  const ranks = await joinMpi({
    silenceSeconds: distributedTimeout,
    onFailure: ({ message }) => printError(`fera: ${message}`),
  });
  if (ranks.rank !== 0) return ranks;
  if (ranks.size === 1) printError("ranks     1: start several with mpirun -n N npx fera train … --distributed mpi");
  else printError(`ranks     ${ranks.size} on ${new Set(ranks.hosts).size} host(s) (${ranks.connection})`);
  return ranks;
}

/** Runs a command's work on this rank. What fails on one rank ends all, with its name. @returns The exit code. */
export async function onAllRanks(ranks: RankGroup | undefined, work: () => Promise<number>): Promise<number> {
  if (!ranks) return work();
  try {
    const code = await work();
    await ranks.leave();
    return code;
  } catch (error) {
    if (ranks.size > 1) {
      if (ranks.rank !== 0) await sleep(OTHERS_WAIT_MS);
      printError(`fera: ${rankName(ranks, ranks.rank)} fails; all ranks end:`);
    }
    setTimeout(() => ranks.abort(Number(process.exitCode) || 1), LAST_WORDS_MS);
    throw error;
  }
}

/** What rank 0 finds, on every rank: JSON. */
export async function fromFirst<T>(ranks: RankGroup | undefined, find: () => Promise<T>): Promise<T> {
  if (!ranks || ranks.size === 1) return find();
  if (ranks.rank !== 0) {
    const { value } = JSON.parse(new TextDecoder().decode(await ranks.broadcast())) as { value: T };
    return value;
  }
  const value = await find();
  await ranks.broadcast(new TextEncoder().encode(JSON.stringify({ value })));
  return value;
}

/** This rank's share of the processors that it has in common with others; undefined where it has its own. */
export async function threadsPerRank(ranks: RankGroup | undefined): Promise<number | undefined> {
  if (!ranks || ranks.size === 1) return undefined;
  const own = `${ranks.hosts[ranks.rank]} ${allowedProcessors()}`;
  // A launcher may have bound each rank to processors of its own.
  const sharing = (await ranks.gather(own)).filter((other) => other === own).length;
  return sharing === 1 ? undefined : Math.max(1, Math.floor(availableParallelism() / sharing));
}

/** Linux's list of them; empty elsewhere, where launchers bind nothing. */
function allowedProcessors(): string {
  try {
    return /^Cpus_allowed_list:\s*(.*)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "";
  } catch {
    return "";
  }
}
