// The same words into many captions at once, with what would change shown before.

import { useEffect, useRef, useState } from "preact/hooks";
import { counted } from "../../../../src/cli/format.js";
import type { DataSetImage } from "../../../../src/studio/protocol.js";
import { tell } from "../../store.js";
import { type CaptionEdit, previewEdit } from "./caption-edits.js";
import { drafts } from "./data-state.js";

interface Props {
  dataSet: string;
  /** Those that are shown. */
  images: readonly DataSetImage[];
  /** How many the set has. */
  total: number;
  onClose(): void;
}

const SHOWN = 4;

export function CaptionAllDialog({ dataSet, images, total, onClose }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [kind, setKind] = useState<CaptionEdit["kind"]>("prepend");
  const [text, setText] = useState("");
  const [replacement, setReplacement] = useState("");
  const [done, setDone] = useState<number | undefined>(undefined);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  const edit: CaptionEdit = kind === "replace" ? { kind, find: text, replacement } : { kind, text };
  const { changes, locked } = previewEdit(images, edit);

  const apply = async (event: Event) => {
    event.preventDefault();
    let failed = 0;
    for (const [index, { name, before, after }] of changes.entries()) {
      setDone(index);
      const draft = drafts.of(dataSet, name, before);
      drafts.edit(draft, after);
      if (!(await drafts.commit(dataSet, name, draft))) failed++;
    }
    tell(
      failed === 0
        ? `${counted(changes.length, "caption")} changed.`
        : `${counted(failed, "caption")} of ${changes.length} could not be saved; they keep their text until they can.`,
      failed > 0,
    );
    dialog.current?.close();
  };

  return (
    <dialog ref={dialog} class="caption-all" aria-label="Change many captions" onClose={onClose}>
      <form class="stack" onSubmit={(event) => void apply(event)}>
        <h2>Change many captions</h2>
        <p class="muted">
          {images.length === total
            ? `All ${counted(total, "image")} of the set.`
            : `The ${counted(images.length, "image")} that the filter shows, of ${total}.`}
        </p>
        <label>
          What to do
          <select value={kind} onChange={(event) => setKind(event.currentTarget.value as CaptionEdit["kind"])}>
            <option value="prepend">Put words before, such as a trigger word</option>
            <option value="append">Put words behind</option>
            <option value="replace">Replace words</option>
          </select>
        </label>
        <label>
          {kind === "replace" ? "Words to replace" : "Words"}
          <input type="text" value={text} onInput={(event) => setText(event.currentTarget.value)} />
        </label>
        {kind === "replace" && (
          <label>
            By
            <input type="text" value={replacement} onInput={(event) => setReplacement(event.currentTarget.value)} />
          </label>
        )}
        <p role="status">
          {counted(changes.length, "caption")} would change
          {locked > 0 && `; ${counted(locked, "more", "more")} cannot be written`}.
        </p>
        <ul class="changes">
          {changes.slice(0, SHOWN).map(({ name, before, after }) => (
            <li key={name}>
              <del>{before || "(empty)"}</del> <ins>{after || "(empty)"}</ins>
            </li>
          ))}
          {changes.length > SHOWN && <li class="muted">and {changes.length - SHOWN} more</li>}
        </ul>
        <div class="row">
          <button type="button" onClick={() => dialog.current?.close()}>
            Cancel
          </button>
          <button type="submit" class="primary" disabled={changes.length === 0 || done !== undefined}>
            {done === undefined ? `Change ${counted(changes.length, "caption")}` : `${done} of ${changes.length}…`}
          </button>
        </div>
      </form>
    </dialog>
  );
}
