// The rooms of src/: imports, and which names are known where.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { circles, type FileImports, readImports, roomProblems } from "../scripts/check-rooms.js";
import { ROOMS } from "../scripts/rooms.js";

const src = fileURLToPath(new URL("../src", import.meta.url));
const sources = readdirSync(src, { recursive: true, encoding: "utf8" }).filter(
  (path) => /\.(ts|js)$/.test(path) && !/\.test\.ts$/.test(path),
);

/** Files with static imports, as `readImports` gives them. */
const files = (imports: Record<string, string[]>, lazy: Record<string, string[]> = {}) =>
  new Map<string, FileImports>(
    Object.entries(imports).map(([file, statics]) => [file, { static: statics, lazy: lazy[file] ?? [] }]),
  );

const SMALL = { low: [], high: ["low"] };

it("the imports of src/ hold to scripts/rooms.ts", () => {
  const imports = readImports(src);
  expect(imports.size).toBeGreaterThan(200);
  expect(roomProblems(imports)).toEqual([]);
});

it("every listed room exists, and imports only rooms listed before it", () => {
  const names = Object.keys(ROOMS);
  const found = new Set(sources.map((path) => path.split("/")[0]!.replace(/\.(ts|js)$/, "")));
  expect(new Set(names)).toEqual(found);
  for (const [index, name] of names.entries()) {
    for (const other of ROOMS[name]!) expect(names.indexOf(other), `${name} imports ${other}`).toBeLessThan(index);
  }
});

it("CONTRIBUTING draws the rooms as they are, each above what it imports", () => {
  const text = readFileSync(join(src, "../CONTRIBUTING.md"), "utf8");
  const lines = /## Rooms[\s\S]*?```\n([\s\S]*?)```/.exec(text)![1]!.trimEnd().split("\n");
  const lineOf = new Map(
    lines.flatMap((line, number) => {
      const rooms = line.split("#")[0]!.trim();
      return rooms.split(/ +/).map((room) => [room, number] as const);
    }),
  );
  expect(new Set(lineOf.keys())).toEqual(new Set(Object.keys(ROOMS)));
  for (const [room, others] of Object.entries(ROOMS)) {
    for (const other of others)
      expect(lineOf.get(other), `${room} imports ${other}`).toBeGreaterThan(lineOf.get(room)!);
  }
});

describe("the check of rooms refuses", () => {
  it("a room that is not listed", () => {
    const [problem, ...more] = roomProblems(files({ "attic/a.ts": [] }), SMALL, {});
    expect(problem).toMatch(/^attic\/a\.ts: the room "attic" is not listed/);
    expect(more).toEqual([]);
  });

  it("an upward import", () => {
    const upward = files({ "low/a.ts": ["high/b.ts"], "high/b.ts": [] });
    expect(roomProblems(upward, SMALL, {})).toEqual(["low/a.ts: low/ may not import high/b.ts"]);
    const downward = files({ "low/a.ts": [], "high/b.ts": ["low/a.ts"] });
    expect(roomProblems(downward, SMALL, {})).toEqual([]);
  });

  it("a lazy import of a room that is not listed for it", () => {
    const lazily = files({ "low/a.ts": [], "high/b.ts": [] }, { "low/a.ts": ["high/b.ts"] });
    expect(roomProblems(lazily, SMALL, {})).toEqual(["low/a.ts: low/ may not import high/b.ts, not even lazily"]);
    expect(roomProblems(lazily, SMALL, { low: ["high"] })).toEqual([]);
  });

  it("a circle of files", () => {
    const circle = files({ "low/a.ts": ["low/b.ts"], "low/b.ts": ["low/c.ts"], "low/c.ts": ["low/b.ts"] });
    expect(circles(circle)).toEqual([["low/b.ts", "low/c.ts", "low/b.ts"]]);
    expect(roomProblems(circle, SMALL, {})).toEqual(["a circle of imports: low/b.ts -> low/c.ts -> low/b.ts"]);
    expect(circles(files({ "low/a.ts": ["low/b.ts"], "low/b.ts": [] }, { "low/b.ts": ["low/a.ts"] }))).toHaveLength(1);
    expect(circles(files({ "low/a.ts": ["low/b.ts", "low/c.ts"], "low/b.ts": ["low/c.ts"], "low/c.ts": [] }))).toEqual(
      [],
    );
  });
});

it("reads imports of types, exports and lazy imports", () => {
  const imports = readImports(src);
  // `import type`, in a file that imports nothing else of that room.
  expect(imports.get("adapters/adapter.ts")!.static).toContain("nn/index.ts");
  expect(imports.get("library.ts")!.static).toContain("inference.ts");
  expect(imports.get("adapters/adapter-model.ts")!.lazy).toEqual(["training/train-step.ts"]);
});

it("UNet2DConditionModel is named in its folder, Stable Diffusion's pipelines, checkpoint names and entries only", () => {
  const allowed = [
    /^models\/unet-2d-condition\//,
    /^pipelines\/stable-diffusion\//,
    // Names in files: the layout of pipelines and single files, what loads by its class name, what is known to be harmless.
    /^models\/single-file\//,
    /^models\/(known-models|harmless-weights|index)\.ts$/,
    /^pipelines\/pipeline-folder\.ts$/,
    /^(inference|library|index|web)\.ts$/,
  ];
  const naming = sources.filter((path) =>
    /UNet2DCondition|UNetInputs|unetFeeds/.test(readFileSync(join(src, path), "utf8")),
  );
  expect(naming).toContain("models/unet-2d-condition/unet-2d-condition.ts");
  expect(naming.filter((path) => !allowed.some((pattern) => pattern.test(path)))).toEqual([]);
});
