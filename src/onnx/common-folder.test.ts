import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect, it } from "vitest";
import * as ops from "../graph/index.js";
import { Graph } from "../graph/index.js";
import "../runtime/node.js";
import { compile } from "../runtime/index.js";
import { commonFolder, rootedFolder } from "./common-folder.js";

it("is the deepest folder that holds every file, down to the root", () => {
  const cases: [string[], string | undefined][] = [
    [[], undefined],
    [["/a/b/c"], "/a/b"],
    [["/a/b/c", "/a/bc/d"], "/a"],
    [["/a/b", "/c/d"], "/"],
    [["C:\\a\\b", "C:\\c\\d"], "C:\\"],
  ];
  for (const [paths, expected] of cases) {
    const folder = commonFolder(paths);
    expect(folder === undefined ? undefined : rootedFolder(folder), paths.join()).toBe(expected);
  }
});

it("weights lie in files that have nothing but the root in common", async () => {
  const folders = [await mkdtemp(join(tmpdir(), "fera-weights-")), await mkdtemp(resolve("test", "fera-weights-"))];
  try {
    const graph = new Graph();
    const [a, b] = await Promise.all(
      folders.map(async (folder, i) => {
        const path = join(folder, "w.bin");
        await writeFile(path, new Uint8Array(Float32Array.of(i + 1, 10 * (i + 1)).buffer));
        return graph.file(`w${i}`, "float32", [2], { path, offset: 0, length: 8 });
      }),
    );
    graph.output("sum", ops.add(a!, b!));
    const compiled = await compile(graph);
    expect([...(await compiled.run({})).sum!.data]).toEqual([3, 30]);
    await compiled.release();
  } finally {
    for (const folder of folders) await rm(folder, { recursive: true });
  }
});
