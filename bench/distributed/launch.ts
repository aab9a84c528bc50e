// Starts ranks of a measurement: alone, by mpirun on this machine, or as two hosts that are network namespaces. Linux.

import { execFile, execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { RankResult, RankTask } from "./rank.js";

const RANK = fileURLToPath(new URL("rank.ts", import.meta.url));
const LOADER = import.meta.resolve("tsx");
const HOSTS = fileURLToPath(new URL("hosts.sh", import.meta.url));
const TIME_LIMIT_MS = 600_000;

/** A link between two hosts. */
export interface Link {
  gigabits: number;
  /** One way. */
  milliseconds: number;
}

/** Runs a task on so many ranks. */
export async function onRanks(count: number, task: RankTask, link?: Link): Promise<RankResult> {
  const program = [process.execPath, "--import", LOADER, RANK, JSON.stringify(task)];
  const alone = task.kind === "steps" && task.isAlone;
  const mpirun = ["mpirun", "--oversubscribe", "-n", String(count), "--bind-to", "none"];
  const words = alone
    ? program
    : link
      ? ["bash", HOSTS, String(link.gigabits), String(link.milliseconds), ...program]
      : [...mpirun, ...program];
  const { stdout } = await promisify(execFile)(words[0]!, words.slice(1), {
    timeout: TIME_LIMIT_MS,
    maxBuffer: 1e8,
    env: { ...process.env, OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1" },
  });
  const line = stdout.split("\n").find((text) => text.startsWith('{"ranks"'));
  if (!line) throw new Error(`no result in:\n${stdout}`);
  return JSON.parse(line) as RankResult;
}

/** Whether this process may make network namespaces. */
export function canMakeHosts(): boolean {
  try {
    execFileSync("unshare", ["--net", "true"]);
    return true;
  } catch {
    return false;
  }
}
