import { spawn } from "node:child_process";
import { openSync } from "node:fs";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runFera, startFera } from "../support/fera-program.js";
import { HAS_FULL_DEVICE } from "../support/full-device.js";

const MODEL = "test/reference/pipeline-tiny";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-cli-streams-"));
});
afterAll(() => rm(dir, { recursive: true }));

describe("fera", () => {
  it("does its work to the end where nobody reads what it prints", async () => {
    const output = join(dir, "unread.png");
    const args = ["--prompt", "red", "--steps", "2", "--num-images", "3", "--threads", "1", "--output", output];
    const running = startFera("generate", "--model", MODEL, ...args);
    running.leave();
    expect((await running.result).code).toBe(0);
    expect((await readdir(dir)).sort()).toEqual(["unread-1.png", "unread-2.png", "unread-3.png"]);
  }, 120_000);

  it.skipIf(!HAS_FULL_DEVICE)(
    "says so and fails where its results cannot be written out",
    async () => {
      const child = spawn(process.execPath, ["dist/cli/main.js", "inspect", `${MODEL}/adapters.safetensors`], {
        stdio: ["ignore", openSync("/dev/full", "w"), "pipe"],
      });
      let stderr = "";
      child.stderr!.setEncoding("utf8").on("data", (text: string) => {
        stderr += text;
      });
      const code = await new Promise((resolve) => child.on("close", resolve));
      expect(stderr).toMatch(/^fera: what it prints cannot be written: ENOSPC.*\n$/);
      expect(code).toBe(1);
    },
    120_000,
  );

  it("names memory where a size is beyond it", async () => {
    const args = ["--prompt", "red", "--steps", "2", "--width", "4000000000", "--output", join(dir, "large.png")];
    const { code, stderr } = await runFera("generate", "--model", MODEL, ...args);
    expect(stderr).toMatch(/^fera: this takes more memory than there is .*smaller/m);
    expect(code).toBe(1);
  }, 120_000);

  it.each([
    ["SIGHUP", "a closed terminal", 129],
    ["SIGINT", "Ctrl-C", 130],
    ["SIGTERM", "a system that shuts down", 143],
  ] as const)(
    "%s, %s, lets it end well",
    async (signal, _, code) => {
      const program = `
      const { interruptible, interruptedExitCode } = await import("./dist/cli/interrupt.js");
      await interruptible("Stopping.", (signal) => new Promise((resolve) => {
        const timer = setTimeout(resolve, 60_000);
        signal.addEventListener("abort", () => { clearTimeout(timer); console.log("checkpoint"); resolve(); });
        console.log("up");
      }));
      process.exitCode = interruptedExitCode();`;
      const child = spawn(process.execPath, ["--input-type=module", "-e", program]);
      let stdout = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => {
        stdout += text;
        if (text === "up\n") child.kill(signal);
      });
      expect(await new Promise((resolve) => child.on("close", (...ended) => resolve(ended)))).toEqual([code, null]);
      expect(stdout).toBe("up\ncheckpoint\n");
    },
    120_000,
  );

  it("a second Ctrl-C ends it by the signal itself", async () => {
    const program = `
      const { interruptible } = await import("./dist/cli/interrupt.js");
      await interruptible("Stopping.", () => new Promise((resolve) => { setTimeout(resolve, 60_000); console.log("up"); }));`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", program]);
    const says = (stream: NodeJS.ReadableStream) => new Promise((resolve) => stream.once("data", resolve));
    const ended = new Promise((resolve) => child.on("close", (code, signal) => resolve([code, signal])));
    await says(child.stdout);
    child.kill("SIGINT");
    expect(String(await says(child.stderr))).toContain("Press Ctrl-C again to quit at once.");
    // Two signals close together come from one key press.
    await sleep(600);
    child.kill("SIGINT");
    expect(await ended).toEqual([null, "SIGINT"]);
  }, 120_000);
});
