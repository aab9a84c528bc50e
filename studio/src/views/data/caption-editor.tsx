// A caption to edit in place: saved on leaving it and with Ctrl+Enter, taken back with Escape.

import { useEffect } from "preact/hooks";
import type { DataSetImage } from "../../../../src/studio/protocol.js";
import type { CaptionDraft } from "./caption-drafts.js";
import { drafts } from "./data-state.js";

interface Props {
  dataSet: string;
  image: DataSetImage;
  rows: number;
}

export function CaptionEditor({ dataSet, image, rows }: Props) {
  const { name, caption, isEditable, warnings } = image;
  /** What it is trained with for want of a caption is no text that somebody wrote. */
  const isBare = warnings.some(({ kind }) => kind === "uncaptioned");
  const draft = drafts.of(dataSet, name, caption);
  const { text, state, error } = draft.value;
  const save = () => void drafts.commit(dataSet, name, draft);
  // A card that is scrolled away, or left with the view, is left.
  useEffect(() => save, [draft]);
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      save();
    } else if (event.key === "Escape" && text !== draft.value.saved) {
      // Not the dialog's: that closes with the next one.
      event.preventDefault();
      event.stopPropagation();
      drafts.revert(draft);
    }
  };
  if (!isEditable) {
    return (
      <p class="caption locked" title="This caption is not in a file of its own, and cannot be edited here.">
        {caption || "(empty caption)"}
      </p>
    );
  }
  return (
    <div class="caption" data-state={state}>
      <textarea
        rows={rows}
        aria-label={`Caption of ${name}`}
        spellcheck={false}
        value={isBare && text === caption ? "" : text}
        placeholder={isBare ? `What is to be seen. Until then it is trained as “${caption}”.` : "What is to be seen"}
        aria-invalid={state === "failed"}
        onInput={(event) => drafts.edit(draft, event.currentTarget.value)}
        onBlur={save}
        onKeyDown={onKeyDown}
      />
      <span class="state" role="status" title={error}>
        {STATES[state]}
        {error !== undefined && <span class="visually-hidden">: {error}</span>}
      </span>
    </div>
  );
}

const STATES: Readonly<Record<CaptionDraft["state"], string>> = {
  saved: "",
  edited: "not saved yet",
  saving: "saving…",
  failed: "could not be saved",
};
