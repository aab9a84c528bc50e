// A training whose disk is really full: a small file system of its own, which is enlarged afterwards. Linux only.

import { execFile, execFileSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { runFera, writeTinyImages } from "../support/fera-program.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

/** Whether a user may mount a file system for a process of their own. */
const CAN_MOUNT = (() => {
  try {
    execFileSync("unshare", ["--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"], {
      stdio: "ignore",
    });
    return true;
  } catch {
    return false;
  }
})();

/** $1 kilobytes, $2 the disk, $3 a folder for what is kept, then the program and its arguments. */
const SCRIPT = `
size=$1 disk=$2 kept=$3; shift 3
mount -t tmpfs -o size=\${size}k none "$disk" || exit 99
"$@" --output "$disk/out" 2> "$kept/stderr"; echo $? > "$kept/code"
find "$disk/out" -name '*.tmp' > "$kept/left"
mount -o remount,size=64m "$disk" || exit 98
resume=; [ -e "$disk/out/run.json" ] && resume=--resume
"$@" --output "$disk/out" $resume 2> "$kept/stderr-again" || exit 97
cp -r "$disk/out" "$kept/out"
`;

let dir: string;
const at = (...parts: string[]) => join(dir, ...parts);
const train = () => [
  ...["train", "--model", at("model"), "--data", at("images"), "--steps", "6", "--batch-size", "1", "--threads", "1"],
  ...["--learning-rate", "1e-2", "--checkpoint-every", "1", "--cache-dir", at("cache"), "--log", "tensorboard"],
  ...["--validation-split", "0.4", "--validation-loss-every", "2", "--validation-prompts", "red"],
];
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-small-disk-"));
  await writeTinyPipeline(at("model"));
  await writeTinyImages(at("images"));
  const whole = await runFera(...train(), "--output", at("uncut"));
  expect(whole.code).toBe(0);
}, 300_000);
afterAll(() => rm(dir, { recursive: true, force: true }));

it.runIf(CAN_MOUNT).each([8, 250, 500, 700, 760, 900])(
  "a disk of %i kB ends with the file's name, and with room again the training ends as if uncut",
  async (size) => {
    const [disk, kept] = [at(`disk-${size}`), at(`kept-${size}`)];
    for (const folder of [disk, kept]) mkdirSync(folder);
    const words = [process.execPath, "dist/cli/main.js", ...train()];
    const around = ["--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh", String(size), disk, kept, ...words];
    await promisify(execFile)("unshare", around, { timeout: 240_000 });
    const stderr = readFileSync(join(kept, "stderr"), "utf8");
    const code = Number(readFileSync(join(kept, "code"), "utf8"));
    process.stderr.write(
      `${size} kB: exit code ${code}, ${stderr.match(/^fera: .*$/m)?.[0].replaceAll(dir, "") ?? ""}\n`,
    );
    if (code !== 0) expect(stderr).toMatch(/^fera: .*: .*no space left/m);
    expect(stderr).not.toContain("unexpected error");
    expect(readFileSync(join(kept, "left"), "utf8")).toBe("");
    const adapter = (folder: string) => readFileSync(join(folder, "adapter.safetensors"));
    expect(adapter(join(kept, "out")).equals(adapter(at("uncut")))).toBe(true);
  },
  300_000,
);
