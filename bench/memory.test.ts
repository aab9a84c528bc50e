import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { MemorySampler, parseStatus, peakAnonymousBytes } from "./memory.js";

const STATUS = `Name:	node
VmPeak:	 1000000 kB
VmHWM:	  300 kB
VmRSS:	  250 kB
RssAnon:	  100 kB
RssFile:	  140 kB
RssShmem:	   10 kB
`;

describe("parseStatus", () => {
  it("reads the four counts in bytes", () => {
    expect(parseStatus(STATUS)).toEqual({
      anonymousBytes: 100 * 1024,
      fileBytes: 140 * 1024,
      residentBytes: 250 * 1024,
      peakBytes: 300 * 1024,
    });
  });

  it("gives nothing for a process that has ended", () => {
    expect(parseStatus("Name:	node\nState:	Z (zombie)\n")).toBeUndefined();
  });
});

describe.skipIf(process.platform !== "linux")("MemorySampler", () => {
  it("keeps the phases of a process apart", async () => {
    const program = `process.stdin.once("data", () => {
      globalThis.held = Buffer.alloc(100e6, 1);
      process.stdout.write("held");
      process.stdin.once("data", () => process.exit());
    });
    process.stdout.write("ready");`;
    const child = spawn(process.execPath, ["-e", program], { stdio: ["pipe", "pipe", "inherit"] });
    const sampler = new MemorySampler(child.pid!, 5);
    await once(child.stdout, "data");
    sampler.begin("before");
    await sleep(20);
    sampler.begin("holding");
    child.stdin.write("go");
    await once(child.stdout, "data");
    await sleep(20);
    child.stdin.write("end");
    await once(child, "close");
    sampler.stop();
    const [before, holding] = ["before", "holding"].map((phase) => sampler.phases.get(phase)!.anonymousBytes);
    expect(holding! - before!).toBeGreaterThan(90e6);
    expect(peakAnonymousBytes(Object.fromEntries(sampler.phases))).toBe(holding);
  });
});
