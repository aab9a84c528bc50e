import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readEvents } from "../../../test/support/read-events.js";
import { crc32c, eventRecord, FILE_VERSION, maskedCrc32c } from "./event-file.js";
import { EventLog, isEventFile } from "./event-log.js";

const GOLDEN = "test/reference/tensorboard";

describe("an event file", () => {
  it("has the CRC-32C of the standard's examples", () => {
    // RFC 3720, appendix B.4.
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
    expect(maskedCrc32c(new TextEncoder().encode("123456789"))).toBe(
      (((0xe3069283 >>> 15) | (0xe3069283 << 17)) + 0xa282ead8) >>> 0,
    );
  });

  it("has the very bytes that TensorBoard's own writer makes of the same events", () => {
    const { events } = JSON.parse(readFileSync(join(GOLDEN, "events.json"), "utf8"));
    const png = new Uint8Array(readFileSync(join(GOLDEN, "picture.png")));
    const records = events.map((event: Parameters<typeof eventRecord>[0]) =>
      eventRecord({
        ...event,
        ...(event.values && {
          values: event.values.map((value) => ("scalar" in value ? value : { ...value, png })),
        }),
      }),
    );
    expect(Buffer.concat(records).equals(readFileSync(join(GOLDEN, "events.out.tfevents")))).toBe(true);
  });
});

describe("an event log", () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "fera-events-"));
  });
  afterAll(() => rmSync(dir, { recursive: true }));

  it("holds what a training tells, and voids the steps that are done again after it was cut off", async () => {
    const numbers = { steps: 9, learningRate: 0.5, gradientNorm: 2, seconds: 1, stepsPerSecond: 4 };
    const report = (step: number) => ({ ...numbers, step, loss: 3, mse: 2, fecl: 1 });
    const log = new EventLog(dir);
    await log.start(1);
    for (const step of [1, 2, 3]) await log.step(step, report(step), {});
    const resumed = new EventLog(dir);
    await resumed.start(3);
    const gates = [{ timestep: 62, gates: [0.25, 0.75] }];
    const byTimestep = [{ from: 0, to: 100, error: 7 }];
    await resumed.step(3, report(3), { gates, validation: { loss: 8, byTimestep, byBand: { low: 5 }, count: 1 } });
    const image = { width: 2, height: 1, data: new Uint8Array(6) };
    await resumed.pictures(3, new Map([["a/b", [image]]]));

    const names = readdirSync(dir).sort();
    expect(names.every(isEventFile)).toBe(true);
    const [first, second] = names.map((name) => readEvents(readFileSync(join(dir, name))));
    expect(first!.map(({ step }) => step)).toEqual([0, 1, 1, 2, 3]);
    expect(first![0]!.fileVersion).toBe(FILE_VERSION);
    expect(second![1]).toMatchObject({ step: 3, isStart: true });
    expect(second![2]).toMatchObject({ step: 3 });
    expect(Object.fromEntries(second![2]!.values.map(({ tag, scalar }) => [tag, scalar]))).toEqual({
      "loss/train": 3,
      "loss/mse": 2,
      "loss/fecl": 1,
      "training/learning rate": 0.5,
      "training/gradient norm": 2,
      "training/steps per second": 4,
      "loss/validation": 8,
      "validation by timestep/0 to 99": 7,
      "validation by band/low": 5,
      "gates at timestep 62/expert 1": 0.25,
      "gates at timestep 62/expert 2": 0.75,
    });
    expect(second![3]!.values[0]).toMatchObject({ tag: "a∕b/1", width: 2, height: 1 });
    expect(Buffer.from(second![3]!.values[0]!.png!).subarray(1, 4).toString()).toBe("PNG");
  });
});
