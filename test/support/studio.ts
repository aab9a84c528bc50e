// The program `fera studio`, as a user starts it, and its page in a browser.

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import type { Browser, Page } from "playwright-core";
import type { AddedFiles, RunSummary } from "../../src/studio/protocol.js";

const PROGRAM = "dist/cli/main.js";
const START_LIMIT_MS = 60_000;
const RUN_LIMIT_MS = 60_000;

/** What `fera studio` is started with. */
export interface StudioArguments {
  data?: readonly string[];
  /** Folder of the runs. */
  runs: string;
  models?: readonly string[];
  /** 0, any free one, by default. */
  port?: number | undefined;
  /** The program, and the folder that it is started in; by default the built one of this checkout. */
  program?: string;
  cwd?: string;
  args?: readonly string[];
  env?: Readonly<Record<string, string>>;
}

/** A studio under way. */
export interface StartedStudio {
  /** With the token. */
  url: string;
  /** Without a path. */
  origin: string;
  token: string;
  pid: number;
  /** What it has printed so far. */
  output(): string;
  /** Opens the page, with the token. */
  openStudio(browser: Browser, options?: { width?: number; height?: number }): Promise<Page>;
  /** Calls `/api/PATH` as the page does; a body makes it a POST. */
  api<T>(path: string, body?: unknown): Promise<T>;
  /** Drops a file into a data set. */
  upload(dataSet: string, name: string, content: string | Uint8Array): Promise<AddedFiles & { error?: string }>;
  /** Waits until a run is as it should be. @throws {Error} With its state, if that takes too long. */
  runUntil(id: string, holds: (run: RunSummary) => boolean, limitMs?: number): Promise<RunSummary>;
  /** Ends it, and waits until it has ended. @returns Its exit code. */
  stop(signal?: NodeJS.Signals): Promise<number | null>;
}

/** Starts it on a free port, and waits until it answers. @throws {Error} With its output, if it ends instead. */
export async function startStudio(options: StudioArguments): Promise<StartedStudio> {
  const { program = PROGRAM, cwd = "." } = options;
  if (!existsSync(resolve(cwd, program))) throw new Error(`${program} is missing: run npm run build first.`);
  const { data = [], runs, models = [], port = 0, args = [], env = {} } = options;
  const words = [
    ...["studio", "--no-open", "--port", String(port), "--runs", runs],
    ...data.flatMap((folder) => ["--data", folder]),
    ...models.flatMap((model) => ["--model", model]),
    ...args,
  ];
  const child = spawn(process.execPath, [program, ...words], { cwd, env: { ...process.env, ...env } });
  let printed = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      printed += text;
    });
  }
  const ended = endOf(child);
  const url = await addressOf(child, () => printed, ended);
  const { origin, searchParams } = new URL(url);
  const token = searchParams.get("token")!;
  return {
    ...{ url, origin, token, pid: child.pid! },
    output: () => printed,
    openStudio: async (browser, { width = 1280, height = 800 } = {}) => {
      // In a context that others can be opened in, too.
      const context = await browser.newContext({ viewport: { width, height } });
      const page = await context.newPage();
      await page.goto(url);
      return page;
    },
    api: (path, body) => call(origin, token, path, body),
    upload: async (id, name, content) => {
      const answer = await fetch(`${origin}/api/dataset/files?${new URLSearchParams({ id, name })}`, {
        method: "POST",
        body: content as BodyInit,
        headers: { Authorization: `Bearer ${token}` },
      });
      return (await answer.json()) as AddedFiles & { error?: string };
    },
    runUntil: async (id, holds, limitMs = RUN_LIMIT_MS) => {
      let run: RunSummary | undefined;
      for (const begin = performance.now(); performance.now() - begin < limitMs; ) {
        run = (await call<RunSummary[]>(origin, token, "runs", undefined)).find((each) => each.id === id);
        if (run && holds(run)) return run;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      throw new Error(`${id} did not get there: ${JSON.stringify(run)}`);
    },
    stop: (signal = "SIGTERM") => {
      child.kill(signal);
      return ended;
    },
  };
}

function endOf(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
}

async function addressOf(child: ChildProcess, printed: () => string, ended: Promise<number | null>): Promise<string> {
  let hasEnded = false;
  ended.then(() => {
    hasEnded = true;
  });
  for (const begin = performance.now(); performance.now() - begin < START_LIMIT_MS; ) {
    const [url] = /http:\/\/\S+\?token=\S+/.exec(printed()) ?? [];
    if (url) return url;
    if (hasEnded) throw new Error(`fera studio ended at once:\n${printed()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  child.kill();
  throw new Error(`fera studio printed no address:\n${printed()}`);
}

async function call<T>(origin: string, token: string, path: string, body: unknown): Promise<T> {
  const answer = await fetch(`${origin}/api/${path}`, {
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
    ...(body !== undefined && { method: "POST", body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error((JSON.parse(text) as { error: string }).error);
  return (text === "" ? undefined : JSON.parse(text)) as T;
}
