import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import "../storage/node.js";
import { readCheckpoint, saveCheckpoint } from "./checkpoint.js";
import { LossScale } from "./loss-scale.js";

describe("a loss scale", () => {
  it("halves down to 1, and doubles after its interval without overflow", () => {
    const scale = new LossScale({ initial: 4, growthInterval: 3 });
    expect([scale.backOff(), scale.backOff(), scale.backOff(), scale.value]).toEqual([true, true, false, 1]);
    for (let i = 0; i < 2; i++) scale.succeeded();
    expect(scale.value).toBe(1);
    scale.succeeded();
    expect(scale.state()).toEqual({ scale: 2, steps: 0 });
    expect(() => new LossScale({ initial: 3 })).toThrow(/must be a power of 2/);
    expect(() => new LossScale({ growthInterval: 0 })).toThrow(/growthInterval/);
    expect(() => scale.restore({ scale: Number.NaN, steps: 0 })).toThrow(/must be a power of 2/);
  });

  it("goes into a checkpoint and comes back", async () => {
    const folder = mkdtempSync(join(tmpdir(), "fera-scale-"));
    const scale = new LossScale({ initial: 512 });
    scale.backOff();
    scale.succeeded();
    const saved = { step: 1, parameters: new Map(), optimizer: new Map(), stream: {}, fingerprint: "" };
    const path = await saveCheckpoint(folder, { ...saved, lossScale: scale.state() });
    const restored = new LossScale();
    restored.restore((await readCheckpoint(path)).lossScale!);
    expect(restored.state()).toEqual({ scale: 256, steps: 1 });
    rmSync(folder, { recursive: true });
  });
});
