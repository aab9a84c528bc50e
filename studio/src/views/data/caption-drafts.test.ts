import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CaptionDrafts } from "./caption-drafts.js";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "captions-"));
});
afterEach(() => rm(root, { recursive: true, force: true }));

const onDisk = () =>
  new CaptionDrafts(async (dataSet, image, caption) => writeFile(join(root, dataSet, `${image}.txt`), caption));
const held = (image: string) => readFile(join(root, `${image}.txt`), "utf8");

describe("CaptionDrafts", () => {
  it("saves what is typed, and only when asked to", async () => {
    const drafts = onDisk();
    const draft = drafts.of(".", "a", "old");
    drafts.edit(draft, "new");
    expect(draft.value.state).toBe("edited");
    expect(drafts.unsaved.value).toBe(1);
    await expect(held("a")).rejects.toThrow();
    expect(await drafts.commit(".", "a", draft)).toBe(true);
    expect(await held("a")).toBe("new");
    expect(draft.value).toEqual({ text: "new", saved: "new", state: "saved" });
    expect(drafts.unsaved.value).toBe(0);
  });

  it("keeps what could not be saved, with the reason, until it can", async () => {
    const drafts = onDisk();
    const draft = drafts.of("later", "a", "");
    drafts.edit(draft, "new");
    expect(await drafts.commit("later", "a", draft)).toBe(false);
    expect(draft.value).toMatchObject({
      text: "new",
      saved: "",
      state: "failed",
      error: expect.stringContaining("ENOENT"),
    });
    // A set that is read again takes nothing away.
    drafts.refresh("later", new Map([["a", "from elsewhere"]]));
    expect(draft.value.text).toBe("new");
    await mkdir(join(root, "later"));
    await drafts.commitAll();
    expect(await held("later/a")).toBe("new");
    expect(drafts.unsaved.value).toBe(0);
  });

  it("saves what was typed while it was saving", async () => {
    const drafts = onDisk();
    const draft = drafts.of(".", "a", "");
    drafts.edit(draft, "first");
    const saving = drafts.commit(".", "a", draft);
    drafts.edit(draft, "second");
    await saving;
    expect(await held("a")).toBe("second");
    expect(draft.value.state).toBe("saved");
  });

  it("lets go of an image that is gone, and tells what was typed for it", () => {
    const told: string[][] = [];
    const drafts = new CaptionDrafts(
      async () => {},
      (...words) => told.push(words),
    );
    drafts.edit(drafts.of(".", "a", ""), "new");
    drafts.of(".", "b", "old");
    drafts.refresh(".", new Map());
    expect(told).toEqual([["a", "new"]]);
    expect(drafts.unsaved.value).toBe(0);
  });

  it("goes back to what the file holds", () => {
    const drafts = onDisk();
    const draft = drafts.of(".", "a", "old");
    drafts.edit(draft, "new");
    drafts.revert(draft);
    expect(draft.value).toEqual({ text: "old", saved: "old", state: "saved" });
  });

  it("takes what a file holds anew where nothing was typed", () => {
    const drafts = onDisk();
    const draft = drafts.of(".", "a", "old");
    drafts.refresh(".", new Map([["a", "of an editor"]]));
    expect(draft.value.text).toBe("of an editor");
  });
});
