// One edit of many captions: words before them, behind them, or in place of others.

import type { DataSetImage } from "../../../../src/studio/protocol.js";

export type CaptionEdit =
  | { kind: "prepend" | "append"; text: string }
  | { kind: "replace"; find: string; replacement: string };

/** A caption that would change. */
export interface CaptionChange {
  name: string;
  before: string;
  after: string;
}

/** A comma between, unless the words bring a separator of their own; what is there already is not added again. */
export function editCaption(caption: string, edit: CaptionEdit): string {
  if (edit.kind === "replace") return edit.find === "" ? caption : caption.split(edit.find).join(edit.replacement);
  const { kind, text } = edit;
  if (text.trim() === "") return caption;
  if (caption.trim() === "") return text.trim().replace(/^,\s*|,$/g, "");
  if (kind === "prepend") {
    if (caption.startsWith(text.trim())) return caption;
    return /[\s,]$/.test(text) ? text + caption : `${text}, ${caption}`;
  }
  if (caption.trimEnd().endsWith(text.trim())) return caption;
  return /^[\s,]/.test(text) ? caption + text : `${caption.trimEnd()}, ${text}`;
}

/** What an edit would change, and how many captions it may not. */
export function previewEdit(
  images: readonly DataSetImage[],
  edit: CaptionEdit,
): { changes: CaptionChange[]; locked: number } {
  const changed = images
    .map((image) => ({ image, after: editCaption(image.caption, edit) }))
    .filter(({ image, after }) => after !== image.caption);
  return {
    changes: changed
      .filter(({ image }) => image.isEditable)
      .map(({ image: { name, caption }, after }) => ({ name, before: caption, after })),
    locked: changed.filter(({ image }) => !image.isEditable).length,
  };
}
