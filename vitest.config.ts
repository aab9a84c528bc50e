import { configDefaults, defineConfig } from "vitest/config";

// Tests named *.slow.test.ts run whole programs many times, a browser, or a software GPU: `npm run test:slow`.
const isSlow = process.env.FERA_SLOW === "1";
const ending = isSlow ? "slow.test.ts" : "test.ts";

export default defineConfig({
  test: {
    include: ["src", "studio", "test", "bench", "examples"].map((folder) => `${folder}/**/*.${ending}`),
    exclude: [...configDefaults.exclude, ...(isSlow ? [] : ["**/*.slow.test.ts"])],
    pool: "forks",
    maxWorkers: 2,
    // Slow tests share two cores with a browser that draws without a GPU.
    testTimeout: isSlow ? 300_000 : 120_000,
    hookTimeout: isSlow ? 300_000 : 120_000,
  },
});
