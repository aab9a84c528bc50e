import { mkdtemp, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, it } from "vitest";
import { withFileLock } from "./file-lock.js";

let folder: string;
let lock: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "fera-lock-"));
  lock = join(folder, "x.lock");
});
afterEach(() => rm(folder, { recursive: true, force: true }));

it("lets one at a time in, tells who waits, and leaves nothing", async () => {
  let inside = 0;
  let most = 0;
  let waits = 0;
  const work = () =>
    withFileLock(
      lock,
      async () => {
        most = Math.max(most, ++inside);
        await sleep(30);
        return inside--;
      },
      { pollMs: 5, onWait: () => waits++ },
    );
  expect(await Promise.all([work(), work(), work()])).toEqual([1, 1, 1]);
  expect(most).toBe(1);
  expect(waits).toBe(2);
  expect(await readdir(folder)).toEqual([]);
});

it("is free again when what it guards fails", async () => {
  await expect(withFileLock(lock, () => Promise.reject(new Error("no")))).rejects.toThrow("no");
  expect(await readdir(folder)).toEqual([]);
});

it("takes over from a process that is gone, at once", async () => {
  // No process has this id: it is above what any system gives.
  await writeFile(lock, JSON.stringify({ pid: 2 ** 30, host: hostname(), id: "x" }));
  let waits = 0;
  const options = { pollMs: 5, onWait: () => waits++ };
  await expect(withFileLock(lock, async () => "in", options)).resolves.toBe("in");
  expect(waits).toBe(0);
});

it("a waiter that throws waits no longer, and leaves the lock to its holder", async () => {
  const onWait = () => {
    throw new Error("another is at work");
  };
  const inner = () => withFileLock(lock, async () => 1, { onWait });
  await expect(withFileLock(lock, inner)).rejects.toThrow("another is at work");
  expect(await readdir(folder)).toEqual([]);
});

it("takes over from another machine's process when it shows no sign of life", async () => {
  const other = JSON.stringify({ pid: process.pid, host: "another-machine", id: "x" });
  await writeFile(lock, other);
  await expect(withFileLock(lock, async () => "in", { pollMs: 5, staleMs: 50 })).resolves.toBe("in");
  await writeFile(lock, other);
  const alive = setInterval(() => utimes(lock, new Date(), new Date()).catch(() => undefined), 20);
  const waiting = withFileLock(lock, async () => "in", { pollMs: 5, staleMs: 2000, signal: AbortSignal.timeout(2500) });
  const failure = await waiting.catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(DOMException);
  expect((failure as Error).message).toMatch(/abort|timeout/i);
  clearInterval(alive);
});

it("fails where the lock cannot be made", async () => {
  await expect(withFileLock(join(folder, "none", "x.lock"), async () => 1)).rejects.toThrow(/ENOENT/);
});
