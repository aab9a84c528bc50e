import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { expect, it } from "vitest";

/** Every module that a source file reaches, with the packages that it names. @param types - Through imports of types, too. */
function reach(entry: string, types = false, seen = new Map<string, string[]>()): Map<string, string[]> {
  if (seen.has(entry)) return seen;
  const packages: string[] = [];
  seen.set(entry, packages);
  const source = readFileSync(entry, "utf8");
  // Type-only imports vanish when compiled; declarations keep them.
  const imports = types
    ? /^(import|export)\s+(?:[^;]*?from\s+)?"([^"]+)";/gm
    : /^(import|export)\s+(?:(?!type\b)[^;]*?from\s+)?"([^"]+)";/gm;
  for (const [, kind, target] of source.matchAll(imports)) {
    if (!target!.startsWith(".")) packages.push(target!);
    else reach(resolve(dirname(entry), target!.replace(/\.js$/, ".ts")), types, seen);
    expect(kind).toBeDefined();
  }
  for (const [, target] of source.matchAll(/import\("([^"]+)"\)/g)) packages.push(target!);
  return seen;
}

it("the browser entry reaches nothing of Node", () => {
  const modules = reach(resolve("src/web.ts"));
  expect(modules.size).toBeGreaterThan(40);
  const packages = new Set([...modules.values()].flat());
  expect(
    [...packages].filter((name) => name.startsWith("node:") || ["sharp", "onnxruntime-node"].includes(name)),
  ).toEqual([]);
  expect(packages).toContain("onnxruntime-web/webgpu");
});

it("the browser entry's declarations name no types of Node or of packages for Node", () => {
  const packages = new Set([...reach(resolve("src/web.ts"), true).values()].flat());
  expect(packages).toContain("zod");
  expect([...packages].filter((name) => /^(node:|sharp$|onnxruntime-node$)/.test(name))).toEqual([]);
});

it("the Node entry reaches no browser runtime", () => {
  const packages = [...reach(resolve("src/index.ts")).values()].flat();
  expect(packages.some((name) => name.startsWith("onnxruntime-web"))).toBe(false);
});
