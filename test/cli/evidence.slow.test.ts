// The study as a user runs it, on a tiny model: its list, its runs in one process and in two, cut and gone on with, its page.

import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { runFera, startFera } from "../support/fera-program.js";
import { writeTinyIconModel } from "../support/tiny-icon-model.js";

let folder: string;
let model: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fera-evidence-"));
  model = join(folder, "model");
  await writeTinyIconModel(model);
});
afterAll(() => rm(folder, { recursive: true }));

const flags = (output: string) => [
  ...["evidence", "--model", model, "--output", join(folder, output), "--part", "main", "--untuned"],
  ...["--seeds", "2", "--steps", "2", "--batch-size", "2", "--drawing-steps", "2", "--limit", "3"],
  ...["--styles", "twemoji", "--methods", "none"],
];

/** What runs found, without what differs from one time to the next. */
async function results(output: string): Promise<Map<string, unknown>> {
  const { runs } = JSON.parse(await readFile(join(folder, output, "runs.json"), "utf8"));
  const kept = runs.map(({ spec, heldOut, own, drawings, gates, loss, parameters }: Record<string, { id: string }>) => [
    spec!.id,
    { heldOut, own, drawings, gates, loss, parameters },
  ]);
  return new Map(kept as [string, unknown][]);
}

it("lists, runs, is cut, goes on in two processes as in one, and writes its page", { timeout: 600_000 }, async () => {
  const list = await runFera(...flags("one"), "--list", "--format", "json");
  expect(list.code, list.stderr).toBe(0);
  expect(JSON.parse(list.stdout)).toMatchObject([{ part: "main", runs: 4, done: 0 }]);
  expect(existsSync(join(folder, "one"))).toBe(false);

  const whole = await runFera(...flags("one"), "--threads", "1");
  expect(whole.code, whole.stderr).toBe(0);
  expect(whole.stdout).toMatch(/written to .*README\.md/);
  expect(whole.stderr).toMatch(/evidence {2}\d\/4/);

  const cut = startFera(...flags("two"), "--threads", "2", "--processes", "2");
  const runs = join(folder, "two", "runs");
  const finished = async () => (await readdir(runs).catch(() => [])).filter((name) => name.endsWith(".json"));
  while ((await finished()).length < 1) await new Promise((resolve) => setTimeout(resolve, 50));
  cut.interrupt();
  expect((await cut.result).code).toBe(130);
  const kept = await finished();
  expect(kept.length).toBeLessThan(4);
  expect(existsSync(join(folder, "two", "README.md"))).toBe(false);

  const other = await runFera(...flags("two"), "--steps", "3");
  expect(other.code).toBe(1);
  expect(other.stderr).toMatch(/holds a study with other settings: steps was 2, is 3/);
  const rest = await runFera(...flags("two"), "--threads", "2", "--processes", "2");
  expect(rest.code, rest.stderr).toBe(0);
  expect(await results("two")).toEqual(await results("one"));
  expect((await results("one")).size).toBe(4);

  const page = await readFile(join(folder, "one", "README.md"), "utf8");
  await rm(join(folder, "one", "README.md"));
  const report = await runFera("evidence", "--model", model, "--output", join(folder, "one"), "--report");
  expect(report.code, report.stderr).toBe(0);
  expect(await readFile(join(folder, "one", "README.md"), "utf8")).toBe(page);
  expect(page).toContain("Not all of the study has been run");
  expect(await readFile(join(folder, "one", "runs.json"), "utf8")).not.toContain(folder);
});

it("says what is wrong with what it is asked for", { timeout: 120_000 }, async () => {
  const part = await runFera("evidence", "--part", "mian", "--list");
  expect(part.code).toBe(2);
  expect(part.stderr).toMatch(/--part must be among rates, speed, main.*got "mian"/);
  const method = await runFera("evidence", "--methods", "lara", "--list");
  expect(method.code).toBe(1);
  expect(method.stderr).toMatch(/there is no method "lara"; there are lora, fera/);
  const empty = await runFera("evidence", "--report", "--output", join(folder, "nothing"));
  expect(empty.code).toBe(1);
  expect(empty.stderr).toMatch(/holds no study\. Run one first/);
});
