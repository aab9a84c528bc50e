import { describe, expect, it } from "vitest";
import { ICON_STYLES, type IconStyle, loadIconSet } from "../training/data/icons.js";
import { openTask, SUBJECTS, sharedNames, type Task, taskName } from "./tasks.js";

const names = sharedNames().filter((name) => /^[a-e][a-z]+$/.test(name));
const options = { size: 32, names, seed: 0, ownLimit: 3 };
const namesOf = (dataset: { size: number; name(i: number): string }) =>
  Array.from({ length: dataset.size }, (_, i) => dataset.name(i));

describe("a task", () => {
  it("holds out the same names in every style, and those of the base's style too", async () => {
    const [first, second] = await Promise.all(
      (["twemoji", "openmoji"] as const).map((style) => openTask({ kind: "style", style }, options)),
    );
    expect(namesOf(first!.heldOut)).toEqual(namesOf(second!.heldOut));
    expect(namesOf(first!.train).filter((name) => namesOf(first!.heldOut).includes(name))).toEqual([]);
    expect(first!.train.size + first!.heldOut.size).toBe(names.length);
    expect(first!.own.size).toBe(3);
    for (const name of namesOf(first!.own)) expect(namesOf(first!.heldOut)).toContain(name);
  });

  it("of few drawings takes those of its seed, the same for all methods", async () => {
    const few = async (seed: number) => {
      const task: Task = { kind: "few-shot", style: "twemoji", drawings: 8 };
      return namesOf((await openTask(task, { ...options, seed })).train);
    };
    expect(await few(0)).toHaveLength(8);
    expect(await few(0)).toEqual(await few(0));
    expect(await few(1)).not.toEqual(await few(0));
    const task: Task = { kind: "few-shot", style: "twemoji", drawings: 8000 };
    await expect(openTask(task, options)).rejects.toThrow(/8000 drawings of "twemoji" are more than the \d+/);
  });

  it("of a subject has drawings in every set, two thirds of them to train on", async () => {
    const sets = (Object.keys(ICON_STYLES) as IconStyle[]).map(loadIconSet);
    for (const [subject, all] of Object.entries(SUBJECTS)) {
      expect(new Set<string>(all).size).toBe(all.length);
      for (const name of all)
        expect(
          sets.every((set) => set.has(name)),
          `${subject} ${name}`,
        ).toBe(true);
    }
    const { train, heldOut } = await openTask({ kind: "subject", style: "openmoji", subject: "heart" }, options);
    expect([train.size, heldOut.size]).toEqual([8, 4]);
  });

  it("has a name, leaves out captions that the model does not take, and at most so many held-out names", async () => {
    const task: Task = { kind: "style", style: "twemoji" };
    expect(taskName(task)).toBe("twemoji");
    expect(taskName({ kind: "few-shot", style: "twemoji", drawings: 8 })).toBe("twemoji-8");
    const { train, heldOut } = await openTask(task, { ...options, limit: 2, takes: (caption) => caption.length < 5 });
    expect(heldOut.size).toBeLessThanOrEqual(2);
    expect(namesOf(train).every((name) => name.length < 5)).toBe(true);
  });
});
