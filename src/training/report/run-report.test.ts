import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HAS_FULL_DEVICE } from "../../../test/support/full-device.js";
import { writePng } from "../../images/image-file.js";
import { writeRunReport } from "./run-report.js";

const HOSTILE = `<script>alert("1")</script> & 'more'`;
const STEPS = 12;

let dir: string;
let page: string;
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "fera-report-"));
  const lines = Array.from({ length: STEPS + 1 }, (_, step) => ({
    step,
    ...(step > 0 && {
      steps: STEPS,
      loss: 1 / step,
      mse: 0.9 / step,
      fecl: 0.1 / step,
      learningRate: 1e-3,
      gradientNorm: 2,
    }),
    ...(step > 0 && { timesteps: [10, 900], sampleLosses: [0.1, 0.2], seconds: step, stepsPerSecond: 1 }),
    ...(step % 4 === 0 && {
      validation: {
        loss: 1 / (step + 1),
        byTimestep: [
          { from: 0, to: 500, error: 1 },
          { from: 500, to: 1000, error: 0.5 },
        ],
        byBand: { low: 0.5, middle: 0.25, high: 0.25 },
        count: 4,
      },
      gates: [{ timestep: 62, gates: [0.25, 0.75] }],
    }),
  }));
  const whole = lines.map((line) => `${JSON.stringify(line)}\n`).join("");
  writeFileSync(join(dir, "metrics.jsonl"), `${whole}{"step":13,"lo`);
  mkdirSync(join(dir, "validation/prompt-0a1b2c3d"), { recursive: true });
  writeFileSync(join(dir, "validation/prompt-0a1b2c3d/prompt.json"), JSON.stringify({ prompt: HOSTILE }));
  await writePng(join(dir, "validation/prompt-0a1b2c3d.png"), { width: 4, height: 2, data: new Uint8Array(24) });
  const settings = { model: HOSTILE, steps: STEPS, targetModules: ["to_q"], left: undefined };
  const { report, plots } = await writeRunReport(dir, { title: HOSTILE, command: HOSTILE, settings, finished: true });
  page = readFileSync(report, "utf8");
  expect([...plots.keys()]).toEqual(["loss", "validation", "gates", "learning-rate"]);
});
afterAll(() => rmSync(dir, { recursive: true }));

describe("report.html", () => {
  it("escapes every text that it is given", () => {
    expect(page).not.toContain("<script");
    const escaped = "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39;more&#39;";
    // Title twice, prompt as caption and description, setting, command.
    expect(page.split(escaped)).toHaveLength(1 + 6);
  });

  it("loads nothing: no address but that of SVG's name, pictures inside, and a policy that forbids the rest", () => {
    expect(page.match(/https?:\/\/[^"' ]+/g)!.every((address) => address === "http://www.w3.org/2000/svg")).toBe(true);
    expect(page).toContain(`content="default-src 'none'; img-src data:; style-src 'unsafe-inline'"`);
    expect(page).toContain('src="data:image/webp;base64,');
    expect(page).not.toMatch(/<link|@import|url\((?!#)/);
  });

  it("has curves of all that was measured, each clipped by its own frame, in light and in dark", () => {
    const captions = [...page.matchAll(/<figcaption>([^<]*)<\/figcaption>/g)].map(([, caption]) => caption);
    expect(captions.slice(1).map((caption) => caption!.split(/[:,]/)[0])).toEqual([
      "Training loss",
      "Validation loss",
      "Validation loss by timestep",
      "Validation loss by spatial frequency",
      "Training loss by timestep",
      "The router&#39;s gates",
      "Learning rate",
      "Norm of all gradients",
    ]);
    const ids = [...page.matchAll(/<clipPath id="([^"]+)"/g)].map(([, id]) => id);
    expect(new Set(ids).size).toBe(captions.length - 1);
    expect(page).toContain("@media (prefers-color-scheme: dark)");
  });

  it("says how far the training came, its settings and nothing that is not set", () => {
    expect(page).toContain("<p>12 steps, finished</p>");
    expect(page).toContain("Validation loss 1.00000 at step 0, 0.07692 at step 12; lowest 0.07692 at step 12");
    expect(page).toContain(`<th scope="row">targetModules</th><td>[&quot;to_q&quot;]</td>`);
    expect(page).not.toContain("<td>left");
  });

  it.runIf(HAS_FULL_DEVICE).each(["report.html", "loss.png"])("names %s on a full disk", async (name) => {
    unlinkSync(join(dir, name));
    symlinkSync("/dev/full", join(dir, name));
    await expect(writeRunReport(dir, { title: "", settings: {}, finished: true })).rejects.toThrow(
      new RegExp(`${name}: cannot be written: no space left`),
    );
    unlinkSync(join(dir, name));
  });
});
