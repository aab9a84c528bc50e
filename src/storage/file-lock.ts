// A lock between processes, as a file beside what it guards: it saves doing the same long work twice. What must never be
// half there is still written under a temporary name and renamed; the lock alone does not protect it. Node only.

import { randomUUID } from "node:crypto";
import { open, readFile, stat, unlink, utimes } from "node:fs/promises";
import { hostname } from "node:os";
import { pause } from "./file-access.js";
import { isObject, jsonIn } from "./json.js";

/** Settings of {@link withFileLock}. */
export interface FileLockOptions {
  /** Called once when another process holds the lock; what it throws ends the waiting. */
  onWait?: () => void;
  /** Stops waiting; `action` must watch it by itself. */
  signal?: AbortSignal;
  /** A lock whose holder has shown no sign of life for so long is taken over. */
  staleMs?: number;
  pollMs?: number;
}

const STALE_MS = 30_000;
const POLL_MS = 200;
/** Signs of life within the time after which a lock counts as stale. */
const BEATS = 6;

/**
 * Runs `action` while holding the lock file `path`, whose folder must exist.
 *
 * A lock left by a process of this machine that is gone is taken over at once, any other when its holder has stopped
 * renewing it. Two waiters that take over at the same moment may both run.
 *
 * @throws The system's error where the lock file cannot be made, the signal's reason, and whatever `action` throws.
 */
export async function withFileLock<T>(
  path: string,
  action: () => Promise<T>,
  options: FileLockOptions = {},
): Promise<T> {
  const { staleMs = STALE_MS } = options;
  const owner = JSON.stringify({ pid: process.pid, host: hostname(), id: randomUUID() });
  await acquire(path, owner, options);
  const beat = setInterval(
    () => {
      const now = new Date();
      utimes(path, now, now).catch(() => undefined);
    },
    Math.ceil(staleMs / BEATS),
  );
  beat.unref();
  try {
    return await action();
  } finally {
    clearInterval(beat);
    if ((await readOwner(path)) === owner) await unlink(path).catch(() => undefined);
  }
}

async function acquire(path: string, owner: string, options: FileLockOptions): Promise<void> {
  const { onWait, signal, staleMs = STALE_MS, pollMs = POLL_MS } = options;
  let seen: { stamp: number; at: number } | undefined;
  for (;;) {
    signal?.throwIfAborted();
    if (await create(path, owner)) return;
    const known = await stat(path).catch(() => undefined);
    if (!known) continue;
    if (isGone(await readOwner(path))) {
      await unlink(path).catch(() => undefined);
      continue;
    }
    // Compared with this process's own clock: the holder's may be another machine's.
    if (seen?.stamp !== known.mtimeMs) {
      if (!seen) onWait?.();
      seen = { stamp: known.mtimeMs, at: performance.now() };
    }
    if (performance.now() - seen.at > staleMs) {
      await unlink(path).catch(() => undefined);
      continue;
    }
    await pause(pollMs, signal);
  }
}

async function create(path: string, owner: string): Promise<boolean> {
  try {
    const handle = await open(path, "wx");
    await handle.writeFile(owner).finally(() => handle.close());
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST") return false;
    await unlink(path).catch(() => undefined);
    throw error;
  }
}

function readOwner(path: string): Promise<string | undefined> {
  return readFile(path, "utf8").catch(() => undefined);
}

/** Whether the owner was a process of this machine that has ended; an empty file is one just being written. */
function isGone(owner: string | undefined): boolean {
  const pid = localProcess(owner);
  return pid !== undefined && pid > 0 && !isAlive(pid);
}

/** The number of the owner's process; undefined where it is of another machine, or nothing is said of it. */
function localProcess(owner: string | undefined): number | undefined {
  const value = jsonIn(owner ?? "");
  if (!isObject(value) || value.host !== hostname() || !Number.isSafeInteger(value.pid)) return undefined;
  return value.pid as number;
}

/** Whether there is such a process on this machine. */
export function isAlive(pid: number): boolean {
  // Of 0 and below are groups of processes.
  if (pid < 1) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/**
 * Who holds a lock: the number of a process of this machine, or nothing of one elsewhere.
 *
 * @returns Undefined where nobody does: there is no lock, its process has gone, or its holder elsewhere has shown no sign of
 *   life for too long.
 */
export async function lockHolder(path: string): Promise<{ pid?: number } | undefined> {
  const owner = await readOwner(path);
  if (owner === undefined) return undefined;
  const pid = localProcess(owner);
  if (pid !== undefined) return isAlive(pid) ? { pid } : undefined;
  const known = await stat(path).catch(() => undefined);
  return known && Date.now() - known.mtimeMs < STALE_MS ? {} : undefined;
}
