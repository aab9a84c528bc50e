// How much the studio's page weighs, as it was built last: all that a browser can load of it, its worker included, without
// ONNX Runtime and the model, as hosts send it.

import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";

const PAGE = "dist/studio-page";
const LIMIT = 300e3;
/** Of all, the worker with the library in it included; without it the page is 99 KB. */
const LIMIT_WITH_LIBRARY = 320e3;

/** Bytes of the page's files, compressed one by one. */
async function weights(): Promise<{ file: string; raw: number; sent: number }[]> {
  const files = (await readdir(PAGE, { withFileTypes: true, recursive: true })).filter((entry) => entry.isFile());
  return Promise.all(
    files.map(async ({ parentPath, name }) => {
      const bytes = await readFile(join(parentPath, name));
      return { file: name, raw: bytes.length, sent: gzipSync(bytes, { level: 9 }).length };
    }),
  );
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

describe("the studio's page", () => {
  it("is less than 320 KB to send, the library in its worker included", async () => {
    const own = (await weights()).filter(({ file }) => !file.startsWith("onnxruntime"));
    expect(own.map(({ file }) => file)).toEqual(
      expect.arrayContaining([expect.stringMatching(/^index.*\.js$/), expect.stringMatching(/^worker.*\.js$/)]),
    );
    expect(sum(own.map(({ sent }) => sent)), JSON.stringify(own, undefined, 1)).toBeLessThan(LIMIT_WITH_LIBRARY);
  });

  it("has no copy of ONNX Runtime's WebAssembly", async () => {
    expect((await weights()).filter(({ file }) => file.endsWith(".wasm"))).toEqual([]);
  });

  it("shows its first view with less than 300 KB as they are, uncompressed", async () => {
    const first = (await weights()).filter(({ file }) => /^index.*\.(js|css|html)$/.test(file));
    expect(sum(first.map(({ raw }) => raw)), JSON.stringify(first, undefined, 1)).toBeLessThan(LIMIT);
  });
});
