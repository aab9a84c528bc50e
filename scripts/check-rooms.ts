// Holds the imports of src/ to scripts/rooms.ts: none that is not listed, no room that is not, and no circle of files,
// imports of types included.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { parseSync } from "oxc-parser";
import { LAZY, ROOMS } from "./rooms.js";

/** One file's relative imports, as paths below src/. */
export interface FileImports {
  static: string[];
  lazy: string[];
}

/** Reads every source file's imports; tests are left out. */
export function readImports(root: string): Map<string, FileImports> {
  const files = readdirSync(root, { recursive: true, encoding: "utf8" })
    .map((path) => path.split(sep).join("/"))
    .filter((path) => /\.(ts|js)$/.test(path) && !path.endsWith(".test.ts"));
  const known = new Set(files);
  return new Map(
    files.sort().map((file) => {
      const text = readFileSync(join(root, file), "utf8");
      const { module, errors } = parseSync(file, text);
      if (errors.length > 0) throw new Error(`${file}: ${errors[0]!.message}`);
      const resolved = (specifiers: string[]) =>
        specifiers
          .filter((specifier) => specifier.startsWith("."))
          .map((specifier) => normalize(join(dirname(file), specifier)))
          .map((path) => (known.has(path) ? path : path.replace(/\.js$/, ".ts")));
      const exported = module.staticExports.flatMap(({ entries }) =>
        entries.flatMap(({ moduleRequest }) => (moduleRequest ? [moduleRequest.value] : [])),
      );
      const lazy = module.dynamicImports.flatMap(({ moduleRequest: { start, end } }) => {
        const literal = /^["']([^"']+)["']$/.exec(text.slice(start, end));
        return literal ? [literal[1]!] : [];
      });
      const statically = [...module.staticImports.map(({ moduleRequest }) => moduleRequest.value), ...exported];
      return [file, { static: [...new Set(resolved(statically))], lazy: resolved(lazy) }];
    }),
  );
}

/** `models/unet/x.ts` → `models`; `errors.ts` → `errors`. */
export const roomOf = (file: string): string => file.split("/")[0]!.replace(/\.(ts|js)$/, "");

/** What breaks the rules, a line each. */
export function roomProblems(
  imports: ReadonlyMap<string, FileImports>,
  rooms: Readonly<Record<string, readonly string[]>> = ROOMS,
  lazyRooms: Readonly<Record<string, readonly string[]>> = LAZY,
): string[] {
  const problems: string[] = [];
  for (const [file, { static: statics, lazy }] of imports) {
    const room = roomOf(file);
    const allowed = rooms[room];
    if (!allowed) {
      problems.push(`${file}: the room "${room}" is not listed in scripts/rooms.ts; a new room may import nothing.`);
      continue;
    }
    for (const target of statics) {
      const other = roomOf(target);
      if (other !== room && !allowed.includes(other)) problems.push(`${file}: ${room}/ may not import ${target}`);
    }
    for (const target of lazy) {
      const other = roomOf(target);
      if (other === room || allowed.includes(other) || lazyRooms[room]?.includes(other)) continue;
      problems.push(`${file}: ${room}/ may not import ${target}, not even lazily`);
    }
  }
  for (const circle of circles(imports)) problems.push(`a circle of imports: ${circle.join(" -> ")}`);
  return problems;
}

/** One circle for each file that closes one, through imports of types and lazy ones too. */
export function circles(imports: ReadonlyMap<string, FileImports>): string[][] {
  const found: string[][] = [];
  const state = new Map<string, "open" | "done">();
  const path: string[] = [];
  const visit = (file: string): void => {
    if (state.get(file) === "done") return;
    if (state.get(file) === "open") {
      found.push([...path.slice(path.indexOf(file)), file]);
      return;
    }
    state.set(file, "open");
    path.push(file);
    const { static: statics = [], lazy = [] } = imports.get(file) ?? {};
    for (const next of [...statics, ...lazy]) visit(next);
    path.pop();
    state.set(file, "done");
  };
  for (const file of imports.keys()) visit(file);
  return found;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = fileURLToPath(new URL("../src", import.meta.url));
  const imports = readImports(root);
  const problems = roomProblems(imports);
  for (const problem of problems) console.error(problem);
  console.log(`${imports.size} files of ${relative(process.cwd(), root)}/, ${problems.length} problems with imports`);
  if (problems.length > 0) process.exitCode = 1;
}
