// Starts the built program on several ranks of this machine by an MPI launcher, where one is installed.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";

/** Launchers by the names that Debian's alternatives have, and what they take so that tests run anywhere. */
const LAUNCHERS = {
  "Open MPI": { program: "mpirun.openmpi", words: ["--oversubscribe"] },
  MPICH: { program: "mpiexec.mpich", words: [] },
} as const;

/** A launcher's family. */
export type Launcher = keyof typeof LAUNCHERS;

/** Containers run tests as root, which Open MPI must be told is meant. */
const ENVIRONMENT = { ...process.env, OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1" };

/** Whether a launcher is installed; one that only has a plain `mpirun` counts as Open MPI where it says so. */
export function isInstalled(launcher: Launcher): boolean {
  return programOf(launcher) !== undefined;
}

/** For a test's name where it is skipped. */
export const WITHOUT_MPI = "no Open MPI here (apt-get install openmpi-bin)";

function programOf(launcher: Launcher): string | undefined {
  for (const program of launcher === "Open MPI" ? [LAUNCHERS[launcher].program, "mpirun"] : [LAUNCHERS.MPICH.program]) {
    try {
      const version = execFileSync(program, ["--version"], { env: ENVIRONMENT, stdio: "pipe", encoding: "utf8" });
      if (version.includes(launcher === "Open MPI" ? "Open MPI" : "HYDRA")) return program;
    } catch {
      // Not installed.
    }
  }
  return undefined;
}

/** How ranks ended. */
export interface RanksResult {
  code: number | null;
  output: string;
}

/** Ranks under way. */
export interface RunningRanks {
  result: Promise<RanksResult>;
  launcher: ChildProcess;
  /** What has been printed so far. */
  output(): string;
  /** The processes of the ranks, by rank. */
  pids(): number[];
}

/** Settings of {@link startRanks}. */
export interface RanksOptions {
  launcher?: Launcher;
  /** Words in front of each rank's program, such as a shell that gives ranks different arguments. */
  around?: readonly string[];
  environment?: Readonly<Record<string, string>>;
  timeLimitMs?: number;
}

/** Starts Node with these arguments on `count` ranks. */
export function startRanks(count: number, args: readonly string[], options: RanksOptions = {}): RunningRanks {
  const { launcher = "Open MPI", around = [], environment = {}, timeLimitMs = 150_000 } = options;
  const words = [...LAUNCHERS[launcher].words, "-n", String(count), ...around, process.execPath, ...args];
  const child = spawn(programOf(launcher)!, words, {
    timeout: timeLimitMs,
    env: { ...ENVIRONMENT, ...environment },
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  const result = new Promise<RanksResult>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, output }));
  });
  return { result, launcher: child, output: () => output, pids: () => ranksBelow(child.pid!) };
}

/** Runs them to their end. */
export const runRanks = (count: number, args: readonly string[], options?: RanksOptions): Promise<RanksResult> =>
  startRanks(count, args, options).result;

/** Processes below another one that have a rank, by rank. Linux only. */
function ranksBelow(ancestor: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
    const status = existsSync(`/proc/${name}/stat`) ? read(`/proc/${name}/stat`) : "";
    parents.set(Number(name), Number(/\) \S (\d+)/.exec(status)?.[1]));
  }
  const isBelow = (pid: number | undefined): boolean =>
    pid !== undefined && (pid === ancestor || isBelow(parents.get(pid)));
  const found: [number, number][] = [];
  for (const pid of parents.keys()) {
    if (pid === ancestor || !isBelow(pid)) continue;
    const environment = read(`/proc/${pid}/environ`);
    const rank = /(?:^|\0)(?:OMPI_COMM_WORLD_RANK|PMI_RANK)=(\d+)/.exec(environment)?.[1];
    if (rank !== undefined) found.push([Number(rank), pid]);
  }
  return found.sort(([a], [b]) => a - b).map(([, pid]) => pid);
}

/** Whether a process is at work; one that has ended may wait for its parent to hear of it. */
export const isRunning = (pid: number): boolean => !/\) [ZX] |^$/.test(read(`/proc/${pid}/stat`));

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
