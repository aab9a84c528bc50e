import { describe, expect, it } from "vitest";
import { Arena, type ArenaEvent } from "./arena.js";

const KB = 1024;
const MB = 1024 * KB;
const made = (id: number, bytes: number): ArenaEvent => ({ kind: "allocate", id, bytes });
const freed = (id: number): ArenaEvent => ({ kind: "free", id });

function resident(...events: ArenaEvent[]): number {
  const arena = new Arena();
  arena.follow(events);
  return arena.residentBytes;
}

describe("an arena", () => {
  it("counts the pages that values touch, not the regions they lie in", () => {
    expect(resident()).toBe(0);
    expect(resident(made(0, 1))).toBe(4 * KB);
    expect(resident(made(0, 600 * KB))).toBe(600 * KB);
  });

  it("takes the smallest free piece that is large enough, and gives the rest of it to others", () => {
    const events = [made(0, 300 * KB), made(1, 4 * KB), made(2, 100 * KB), made(3, 4 * KB), freed(0), freed(2)];
    expect(resident(...events, made(4, 100 * KB), made(5, 300 * KB))).toBe(408 * KB);
    expect(resident(...events, made(4, 100 * KB), made(5, 140 * KB), made(6, 140 * KB))).toBe(408 * KB);
  });

  it("joins free neighbours", () => {
    expect(resident(made(0, 200 * KB), made(1, 200 * KB), freed(0), freed(1), made(2, 400 * KB))).toBe(400 * KB);
  });

  it("needs more than lives at once where free pieces are too small: what it is for", () => {
    // 400 KB are free, in two pieces with a value between them.
    const apart = [made(0, 200 * KB), made(1, 4 * KB), made(2, 200 * KB), made(3, 4 * KB), freed(0), freed(2)];
    expect(resident(...apart, made(4, 300 * KB))).toBe(708 * KB);
  });

  it("keeps what it has from one run to the next", () => {
    const run = [made(0, 4 * MB), made(1, 3 * MB), freed(0), made(2, 4 * MB), freed(1), freed(2)];
    expect(resident(...run, ...run, ...run)).toBe(7 * MB);
  });
});
