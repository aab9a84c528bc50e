import { mkdtemp, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { forgetOldest } from "./drawings.js";

it("keeps the newest drawings, and nothing but drawings is deleted", async () => {
  const folder = await mkdtemp(join(tmpdir(), "fera-drawings-"));
  try {
    for (const [index, name] of ["c.png", "a.png", "d.png", "b.png", "notes.txt"].entries()) {
      await writeFile(join(folder, name), "");
      await utimes(join(folder, name), 1000 - index, 1000 - index);
    }
    await forgetOldest(folder, 4);
    expect((await readdir(folder)).sort()).toEqual(["a.png", "b.png", "c.png", "d.png", "notes.txt"]);
    await forgetOldest(folder, 2);
    expect((await readdir(folder)).sort()).toEqual(["a.png", "c.png", "notes.txt"]);
    await forgetOldest(folder, -3);
    expect(await readdir(folder)).toEqual(["notes.txt"]);
  } finally {
    await rm(folder, { recursive: true });
  }
});
