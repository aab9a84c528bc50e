// Fills this folder with what README.md lists, once for each state of package-lock.json. Part of `npm ci` (prepare).

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const HERE = import.meta.dirname;
const MODULES = join(HERE, "node_modules");
const FILLED = join(HERE, "filled.txt");

const INTER_SCRIPTS = ["latin", "latin-ext", "greek", "cyrillic"];
const INTER_WEIGHTS = [400, 600];

const LICENSE = `MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
`;

const state = createHash("sha256")
  .update(readFileSync(join(HERE, "package-lock.json")))
  .update(readFileSync(import.meta.filename))
  .digest("hex");
if (!existsSync(FILLED) || readFileSync(FILLED, "utf8") !== state) {
  rmSync(FILLED, { force: true });
  download();
  carryOnnxRuntime();
  carryInter();
  rmSync(MODULES, { recursive: true });
  writeFileSync(FILLED, state);
}

/** The locked packages, through npm, without their install scripts. */
function download() {
  // npm names itself to the scripts that it runs; on Windows `npm` alone cannot be spawned.
  const npm = process.env.npm_execpath?.includes("npm-cli") ? [process.execPath, process.env.npm_execpath] : ["npm"];
  const options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-global", "--prefix", HERE];
  const { status, error } = spawnSync(npm[0], [...npm.slice(1), "ci", ...options], {
    cwd: HERE,
    stdio: ["ignore", "ignore", "inherit"],
  });
  if (status !== 0) throw new Error(`npm ci in ${HERE} failed`, { cause: error });
}

function carryOnnxRuntime() {
  const from = join(MODULES, "onnxruntime-node");
  const to = join(HERE, "onnxruntime-node");
  rmSync(to, { recursive: true, force: true });
  mkdirSync(to);
  for (const part of ["bin", "dist"]) renameSync(join(from, part), join(to, part));
  const { name, version, license, repository, main, types } = JSON.parse(
    readFileSync(join(from, "package.json"), "utf8"),
  );
  // npm has no links: the library is in the package twice, and the binding asks for it under its shorter name.
  rmSync(join(to, `bin/napi-v6/darwin/arm64/libonnxruntime.${version}.dylib`));
  writeFileSync(
    join(to, "package.json"),
    `${JSON.stringify({ name, version, license, repository, main, types }, null, 2)}\n`,
  );
  writeFileSync(join(to, "LICENSE"), LICENSE);
}

function carryInter() {
  const from = join(MODULES, "@fontsource/inter");
  const to = join(HERE, "inter");
  rmSync(to, { recursive: true, force: true });
  mkdirSync(to);
  cpSync(join(from, "LICENSE"), join(to, "LICENSE"));
  for (const script of INTER_SCRIPTS) {
    for (const weight of INTER_WEIGHTS) {
      const file = `inter-${script}-${weight}-normal.woff`;
      cpSync(join(from, "files", file), join(to, file));
    }
  }
}
