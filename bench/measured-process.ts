// Runs a program that measures something in a process of its own and takes its result: nothing that ran before it, and
// nothing that runs beside it, is in its time or memory.
//
// The program says on its standard output, one line each: `@bench {"phase": NAME}` when a phase begins, and at the end
// `@bench {"result": …}`.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { MemorySampler, type PhaseMemory } from "./memory.js";

const MARK = "@bench ";

/** What a program measured, and the memory that it held meanwhile. */
export interface Measured<Result> {
  result: Result;
  /** Largest values by phase; empty where the platform does not tell. */
  memory: Record<string, PhaseMemory>;
}

/** Settings of {@link measure}. */
export interface MeasureOptions {
  env?: Readonly<Record<string, string>>;
  /** After which the program is ended. Unlimited by default. */
  timeoutSeconds?: number;
}

const running = new Set<number>();
for (const [signal, exitCode] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const) {
  process.once(signal, () => {
    for (const pid of running) endGroup(pid);
    process.exit(exitCode);
  });
}

/**
 * Runs a program to its end.
 *
 * @throws {Error} With the end of what it wrote to standard error, if it fails, runs out of time or gives no result.
 */
export async function measure<Result>(
  command: string,
  args: readonly string[],
  { env = {}, timeoutSeconds }: MeasureOptions = {},
): Promise<Measured<Result>> {
  // A group of its own, so that helpers of the program (compilers) end with it.
  const child = spawn(command, args, {
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...env },
  });
  const ended = new Promise<string>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
  const { pid } = child;
  if (pid === undefined) throw await ended.then(() => new Error(`${command}: did not start.`));
  running.add(pid);
  const sampler = new MemorySampler(pid);
  let timedOut = false;
  const timer =
    timeoutSeconds === undefined
      ? undefined
      : setTimeout(() => {
          timedOut = true;
          endGroup(pid);
        }, timeoutSeconds * 1000);

  let complaint = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    complaint = (complaint + text).slice(-4000);
  });
  let result: { value: Result } | undefined;
  createInterface({ input: child.stdout }).on("line", (line) => {
    if (!line.startsWith(MARK)) return;
    const message = JSON.parse(line.slice(MARK.length)) as { phase?: string; result?: Result };
    if (message.phase !== undefined) sampler.begin(message.phase);
    if (message.result !== undefined) result = { value: message.result };
  });
  try {
    const how = await ended;
    if (timedOut) throw new Error(`${command}: ended after ${timeoutSeconds} s.`);
    if (!result || how !== "exit code 0") throw new Error(`${command}: ${how}.\n${complaint.trim()}`);
  } finally {
    clearTimeout(timer);
    sampler.stop();
    running.delete(pid);
  }
  return { result: result.value, memory: Object.fromEntries(sampler.phases) };
}

/** Runs {@link file://./measured-part.ts} with a task, in the Node and with the loader of this process. */
export const measurePart = <Result>(task: object, options?: MeasureOptions): Promise<Measured<Result>> =>
  measureProgram("measured-part.ts", task, options);

/** Runs a program of this folder with a task, in the Node and with the loader of this process. */
export function measureProgram<Result>(
  file: string,
  task: object,
  options?: MeasureOptions,
): Promise<Measured<Result>> {
  const timer = new URL("./onnx-timer.js", import.meta.url).href;
  const program = fileURLToPath(new URL(file, import.meta.url));
  const args = [...process.execArgv, "--import", timer, program, JSON.stringify(task)];
  return measure<Result>(process.execPath, args, options);
}

/** Said by a measured program: a phase begins. */
export const sayPhase = (phase: string): void => say({ phase });

/** Said by a measured program: its result. */
export const sayResult = (result: object): void => say({ result });

function say(message: object): void {
  process.stdout.write(`${MARK}${JSON.stringify(message)}\n`);
}

function endGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}
