import { describe, expect, it } from "vitest";
import { dataSetImage as image } from "../../../../test/support/data-set-image.js";
import { editCaption, previewEdit } from "./caption-edits.js";

describe("editCaption", () => {
  it("puts a comma between, unless the words bring a separator", () => {
    expect(editCaption("a dog", { kind: "prepend", text: "sks" })).toBe("sks, a dog");
    expect(editCaption("a dog", { kind: "prepend", text: "photo of " })).toBe("photo of a dog");
    expect(editCaption("a dog", { kind: "append", text: "outdoors" })).toBe("a dog, outdoors");
    expect(editCaption("a dog", { kind: "append", text: " in the sun" })).toBe("a dog in the sun");
  });

  it("is the whole of a caption that was empty", () => {
    expect(editCaption(" ", { kind: "prepend", text: "sks, " })).toBe("sks");
  });

  it("adds nothing twice", () => {
    const edit = { kind: "prepend", text: "sks dog" } as const;
    expect(editCaption(editCaption("in the sun", edit), edit)).toBe("sks dog, in the sun");
    expect(editCaption("a dog, outdoors", { kind: "append", text: "outdoors" })).toBe("a dog, outdoors");
  });

  it("replaces words to the letter, not as a pattern", () => {
    expect(editCaption("a.b a.b axb", { kind: "replace", find: "a.b", replacement: "$&" })).toContain("axb");
    expect(editCaption("a dog", { kind: "replace", find: "", replacement: "x" })).toBe("a dog");
  });

  it("inserts a replacement as it is typed", () => {
    expect(editCaption("price", { kind: "replace", find: "price", replacement: "$& $1" })).toBe("$& $1");
  });
});

describe("previewEdit", () => {
  it("lists what changes, and counts what may not", () => {
    const images = [image("1", "a dog"), image("2", "sks, a dog"), { ...image("3", "a cat"), isEditable: false }];
    expect(previewEdit(images, { kind: "prepend", text: "sks" })).toEqual({
      changes: [{ name: "1", before: "a dog", after: "sks, a dog" }],
      locked: 1,
    });
  });
});
