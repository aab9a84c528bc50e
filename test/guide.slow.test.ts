// The guide's commands, in its order, on the embedded model and in a few steps.

import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import sharp from "sharp";
import { afterAll, expect, it } from "vitest";

const folder = mkdtempSync(join(tmpdir(), "fera-guide-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The guide's ```sh blocks, made short: the embedded model at its own size, four steps, this checkout's program. */
function commands(): string[] {
  const blocks = [...readFileSync("docs/guide.md", "utf8").matchAll(/^```sh\n(.*?)^```/gms)].map(([, block]) => block!);
  const program = `"${process.execPath}" "${resolve("dist/cli/main.js")}"`;
  return blocks.map((block) =>
    block
      .replaceAll("npx fera", program)
      .replace(/^(MODEL\w*)=.*$/gm, `$1="${resolve("assets/icons")}"`)
      .replace(/--resolution \d+/g, "--resolution 64")
      .replace(/--bucket(?= )/g, "--bucket --bucket-step 32")
      .replace(/--steps \d+/g, "--steps 4")
      .replace(/--(validate|validation-loss)-every \d+/g, "--$1-every 2")
      // A tokenizer of icons' names splits "sks", and has room for a few words.
      .replace(/a photo of sks dog(?: on a beach)?/g, "sks dog"),
  );
}

it("the guide's commands do what it says", { timeout: 600_000 }, async () => {
  mkdirSync(join(folder, "photos"));
  for (let i = 0; i < 20; i++) {
    const [width, height] = i % 3 === 0 ? [90, 120] : [140, 96];
    const background = { r: 12 * i, g: 255 - 12 * i, b: (40 * i) % 255 };
    await sharp({ create: { width, height, channels: 3, background } })
      .jpeg()
      .toFile(join(folder, "photos", `photo ${i}.jpg`));
  }
  const script = ["set -e", ...commands()].join("\n");
  const { stdout } = await promisify(execFile)("bash", ["-c", script], { cwd: folder, maxBuffer: 2 ** 24 });
  expect(stdout).toContain("runs/dog/adapter.safetensors");
  for (const file of [
    ...["sheet.png", "dog.png", "dog.safetensors", "dog-frozen.safetensors", "dog-diffusers.safetensors"],
    ...["runs/dog/report.html", "runs/dog/metrics.jsonl", "runs/dog-lora/adapter.safetensors"],
    ...["runs/dog-xl/adapter.safetensors"],
  ]) {
    expect(existsSync(join(folder, file)), file).toBe(true);
  }
});
