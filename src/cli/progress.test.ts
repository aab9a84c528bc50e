import { describe, expect, it } from "vitest";
import { Progress } from "./progress.js";

function recorded(isTTY: boolean) {
  const written: string[] = [];
  let time = 0;
  const stream = { isTTY, columns: 200, write: (text: string) => written.push(text) > 0 };
  const progress = new Progress({ label: "training", total: 100, unit: "steps", stream, now: () => time });
  const step = (done: number, afterMs: number) => {
    time += afterMs;
    progress.update(done, "loss 0.5000");
  };
  return { written, step, progress };
}

describe("Progress", () => {
  it("rewrites one line on a terminal, with bar, count, note, speed and time left", () => {
    const { written, step, progress } = recorded(true);
    step(1, 9000);
    step(11, 5000);
    step(12, 1);
    progress.end();
    expect(written).toEqual([
      "\r\x1b[2Ktraining  ░░░░░░░░░░░░░░░░░░░░  1/100  loss 0.5000",
      "\r\x1b[2Ktraining  ██░░░░░░░░░░░░░░░░░░  11/100  loss 0.5000  2.0 steps/s  45 s left",
      "\n",
    ]);
  });

  it("escapes control characters out of labels, notes and messages", () => {
    const { written, progress } = recorded(true);
    progress.update(1, "a\x1b[2Jb\x07.png\n");
    progress.say("drawn \x9b2J\r");
    progress.end();
    expect(written.join("").replaceAll("\r\x1b[2K", "").replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
    expect(written[0]).toContain("a\\u{1b}[2Jb\\u{7}.png\\u{a}");
  });

  it("writes plain lines elsewhere, not more than one in two seconds, and the last one always", () => {
    const { written, step } = recorded(false);
    for (let done = 1; done <= 99; done++) step(done, 100);
    step(100, 1);
    expect(written[0]).toBe("training  1/100  loss 0.5000\n");
    expect(written.at(-1)).toBe("training  100/100  loss 0.5000  10 steps/s  10 s\n");
    expect(written).toHaveLength(6);
  });

  it("writes fewer lines the longer it runs", () => {
    const { written, step } = recorded(false);
    for (let done = 1; done <= 99; done++) step(done, 60_000);
    expect(written.length).toBeGreaterThan(50);
    const short = written.length;
    for (let i = 0; i < 99; i++) step(99, 10_000);
    expect(written.length - short).toBeLessThan(10);
  });

  it("lets other messages stand above the bar", () => {
    const { written, step, progress } = recorded(true);
    step(1, 100);
    progress.say("drawn x.png");
    expect(written.at(-1)).toBe("\r\x1b[2Kdrawn x.png\n");
    progress.end();
    expect(written.at(-1)).not.toBe("\n");
  });
});
