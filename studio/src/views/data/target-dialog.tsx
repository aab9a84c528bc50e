// Where dropped files go: into the set that is looked at, or a new one.

import { useEffect, useRef, useState } from "preact/hooks";
import { counted } from "../../../../src/cli/format.js";
import type { DataSetSummary } from "../../../../src/studio/protocol.js";
import type { Dropped } from "./dropped-files.js";

interface Props {
  dropped: Dropped;
  /** The set that is looked at, if it can be added to. */
  current: DataSetSummary | undefined;
  onChoose(target: { id: string } | { label: string }): void;
  onClose(): void;
}

export function TargetDialog({ dropped, current, onChoose, onClose }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const { files, leftOut, isFlattened } = dropped;
  // A folder is a set of its own more often than not.
  const [isNew, setNew] = useState(current === undefined || dropped.label !== "");
  const [label, setLabel] = useState(dropped.label || "my images");
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  const submit = (event: Event) => {
    event.preventDefault();
    dialog.current?.close();
    onChoose(isNew ? { label: label.trim() } : { id: current!.id });
  };
  return (
    <dialog ref={dialog} class="asking" aria-label="Add files" onClose={onClose}>
      <form class="stack" onSubmit={submit}>
        <h2>Add {counted(files.length, "file")}</h2>
        {leftOut > 0 && (
          <p class="muted">{counted(leftOut, "hidden file")} of the system, such as .DS_Store, are left out.</p>
        )}
        {isFlattened && <p class="muted">They come from several folders, and go into one data set without them.</p>}
        <fieldset class="plain stack tight">
          <legend class="visually-hidden">Where to</legend>
          {current && (
            <label class="tick">
              <input type="radio" name="target" checked={!isNew} onChange={() => setNew(false)} />
              To {current.label}
            </label>
          )}
          <label class="tick">
            <input type="radio" name="target" checked={isNew} onChange={() => setNew(true)} />
            To a new data set
          </label>
          <label>
            Its name
            <input
              type="text"
              required={isNew}
              maxLength={100}
              disabled={!isNew}
              value={label}
              onInput={(event) => setLabel(event.currentTarget.value)}
            />
          </label>
        </fieldset>
        <div class="row">
          <button type="button" onClick={() => dialog.current?.close()}>
            Cancel
          </button>
          <button type="submit" class="primary" disabled={files.length === 0 || (isNew && label.trim() === "")}>
            Add
          </button>
        </div>
      </form>
    </dialog>
  );
}
