// The package as its users get it: packed, installed into an empty project, used there. FERA_PACKAGE names a file that is
// packed already.

import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import sharp from "sharp";
import { afterAll, beforeAll, expect, it } from "vitest";
import { readSafetensors } from "../../src/index.js";
import { expectSameOutput, readmeCommands, readmeProgram } from "../support/readme.js";
import { startStudio } from "../support/studio.js";

const run = promisify(execFile);
/** What the README calls `assets/icons`, seen from a project. */
const MODEL = "node_modules/fera/assets/icons";

let folder: string;
let project: string;
/** What npm printed while installing. */
let said: string;

/** Runs a program in the project. npm's settings of this checkout are kept from it. */
async function inProject(
  program: string,
  ...args: string[]
): Promise<{ code: number; stdout: string; stderr: string }> {
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(npm_|onnxruntime|init_cwd|node_path)/i.test(name)),
  );
  return run(program, args, { cwd: project, env, maxBuffer: 1 << 26 }).then(
    (printed) => ({ code: 0, ...printed }),
    (error: { code: number; stdout: string; stderr: string }) => error,
  );
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fera-package-"));
  project = join(folder, "project");
  await mkdir(project);
  await writeFile(join(project, "package.json"), '{ "private": true, "type": "module" }');
  let file = process.env.FERA_PACKAGE && resolve(process.env.FERA_PACKAGE);
  if (!file) {
    await run("npm", ["pack", "--pack-destination", folder]);
    file = join(folder, (await readdir(folder)).find((name) => name.endsWith(".tgz"))!);
  }
  const { code, stdout, stderr } = await inProject("npm", "install", "--no-audit", "--no-fund", file);
  said = stdout + stderr;
  expect(code, said).toBe(0);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

it("installs without a warning and without an install script of any package", async () => {
  expect(said).not.toMatch(/warn/i);
  const lock = JSON.parse(await readFile(join(project, "package-lock.json"), "utf8"));
  const packages = Object.entries<{ hasInstallScript?: boolean }>(lock.packages);
  expect(packages.length).toBeGreaterThan(10);
  expect(packages.filter(([, { hasInstallScript }]) => hasInstallScript)).toEqual([]);
});

it("brings nothing that only browsers, CUDA or the demo need", async () => {
  const files = await readdir(join(project, "node_modules"), { recursive: true });
  expect(files).toContain(join("fera", "vendor", "inter", "LICENSE"));
  expect(files.filter((file) => /^(onnxruntime-(node|web)|@iconify-json|@fontsource)/.test(file))).toEqual([]);
  expect(files.filter((file) => /providers_(cuda|tensorrt)/.test(file))).toEqual([]);
});

it("runs the README's program as printed there", async () => {
  const { program, output } = readmeProgram();
  await writeFile(join(project, "program.js"), program.replace("assets/icons", MODEL));
  const { stdout, stderr } = await inProject(process.execPath, "program.js");
  expect(stderr).toBe("");
  expectSameOutput(stdout, output);
  expect((await readSafetensors(join(project, "fera_output.safetensors"))).tensors.size).toBeGreaterThan(0);
});

it("runs the README's command lines, trained for two steps", async () => {
  await mkdir(join(project, "my-images"));
  for (const [name, background] of Object.entries({ apple: "#d33", leaf: "#3a4", sky: "#38c" })) {
    const picture = sharp({ create: { width: 70, height: 80, channels: 3, background } });
    await picture.png().toFile(join(project, "my-images", `${name}.png`));
    await writeFile(join(project, "my-images", `${name}.txt`), name);
  }
  const commands = readmeCommands();
  expect(commands.map(([command]) => command)).toEqual(["train", "generate", "studio"]);
  // The studio goes on until it is ended: the next test has it.
  for (const command of commands.slice(0, 2)) {
    const args = command.map((part) => (part === "assets/icons" ? MODEL : part));
    const { code, stderr } = await inProject("npx", "fera", ...args, "--steps", "2");
    expect(code, stderr).toBe(0);
  }
  expect(await sharp(join(project, "apple.png")).metadata()).toMatchObject({ format: "png", width: 128, height: 128 });
  expect((await sharp(join(project, "runs/mine/loss.png")).metadata()).format).toBe("png");
});

it("serves the studio's page", async () => {
  const program = "node_modules/fera/dist/cli/main.js";
  const studio = await startStudio({ program, cwd: project, data: ["my-images"], runs: "runs" });
  try {
    const page = await (await fetch(studio.origin)).text();
    expect(page).toContain("<title>fera studio</title>");
    const [script] = /assets\/index[^"]*\.js/.exec(page) ?? [];
    expect((await fetch(`${studio.origin}/${script}`)).status).toBe(200);
  } finally {
    await studio.stop();
  }
});

it("says which icon set to install for the demo", async () => {
  const { code, stderr } = await inProject("npx", "fera", "demo");
  expect(code).toBe(1);
  expect(stderr).toContain("npm install @iconify-json/fluent-emoji-high-contrast");
});

it("uses the project's own onnxruntime-node where its minor version is the carried one's", async () => {
  const own = join(project, "node_modules/onnxruntime-node");
  await cp(join(project, "node_modules/fera/vendor/onnxruntime-node"), own, { recursive: true });
  const description = JSON.parse(await readFile(join(own, "package.json"), "utf8"));
  const [major, minor] = description.version.split(".");
  const folderWith = async (version: string) => {
    await writeFile(join(own, "package.json"), JSON.stringify({ ...description, version }));
    const module = "./node_modules/fera/dist/runtime/onnxruntime.js";
    const program = `console.log((await import("${module}")).onnxRuntimeFolder)`;
    const { stdout, stderr } = await inProject(process.execPath, "--input-type=module", "--eval", program);
    return (stdout + stderr).trim();
  };
  expect(await folderWith(`${major}.${minor}.99`)).toBe(own);
  expect(await folderWith(`${major}.${Number(minor) - 1}.0`)).toContain("fera/vendor/onnxruntime-node");
  await rm(own, { recursive: true });
});

it("its types hold in a strict program, in Node and in a bundle for browsers", async () => {
  await writeFile(
    join(project, "typed.ts"),
    `import { FeRAModel, StableDiffusionPipeline } from "fera";
     export const load = async (): Promise<FeRAModel> => new FeRAModel((await StableDiffusionPipeline.fromPretrained("x")).unet);
     // @ts-expect-error: a scale is a number
     export const scale = async () => (await StableDiffusionPipeline.fromPretrained("x")).setAdapterScale("1");`,
  );
  const compiler = resolve("node_modules/typescript/bin/tsc");
  const common = ["--noEmit", "--strict", "--target", "es2022", "typed.ts"];
  const bundler = ["--module", "esnext", "--moduleResolution", "bundler", "--customConditions", "browser"];
  const libraries = ["--lib", "es2023,dom", "--types", ""];
  const browser = await inProject(process.execPath, compiler, ...bundler, ...libraries, ...common);
  expect(browser.stdout + browser.stderr).toBe("");
  // Node's own types are the project's to install.
  for (const name of ["@types/node", "undici-types"]) {
    await cp(join("node_modules", name), join(project, "node_modules", name), { recursive: true });
  }
  const node = await inProject(process.execPath, compiler, "--module", "nodenext", "--types", "node", ...common);
  expect(node.stdout + node.stderr).toBe("");
});
