import { defineConfig } from "vitest/config";

// A step of its own in .ci/run: packing and installing take longer than all other tests' preparations together.
export default defineConfig({
  test: { include: ["test/package/*.check.ts"], testTimeout: 120_000, hookTimeout: 300_000, bail: 1 },
});
