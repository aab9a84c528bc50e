// Ways to add images: pickers for files and folders, a drawing pad, and what became of files that were added.

import { useRef, useState } from "preact/hooks";
import { counted } from "../../../../src/cli/format.js";
import { adding, cancelAdding } from "./data-state.js";
import { DrawingDialog } from "./drawing-dialog.js";
import { type PlacedFile, pickedFiles } from "./dropped-files.js";

export function AddPanel({ onFiles }: { onFiles(files: PlacedFile[]): void }) {
  const files = useRef<HTMLInputElement>(null);
  const folder = useRef<HTMLInputElement>(null);
  const [isDrawing, setDrawing] = useState(false);
  const picked = (event: { currentTarget: HTMLInputElement }) => {
    const input = event.currentTarget;
    if (input.files && input.files.length > 0) onFiles(pickedFiles(input.files));
    // The same ones can be picked again.
    input.value = "";
  };
  return (
    <section class="panel stack" aria-labelledby="add-title">
      <h2 id="add-title">Add images</h2>
      <p class="muted">
        Drop files or a folder anywhere on this page. A caption is the text file of the same name, such as dog.txt
        beside dog.png.
      </p>
      <div class="row">
        <button type="button" onClick={() => files.current?.click()}>
          Files…
        </button>
        <button type="button" onClick={() => folder.current?.click()}>
          Folder…
        </button>
        <button type="button" onClick={() => setDrawing(true)}>
          Draw…
        </button>
      </div>
      <input ref={files} type="file" multiple hidden aria-label="Files to add" onChange={picked} />
      <input
        ref={folder}
        type="file"
        hidden
        aria-label="Folder to add"
        onChange={picked}
        {...{ webkitdirectory: true }}
      />
      <AddingReport />
      {isDrawing && <DrawingDialog onClose={() => setDrawing(false)} />}
    </section>
  );
}

/** How far adding is, and which files were refused. */
function AddingReport() {
  if (!adding.value) return null;
  const { label, done, total, added, refused, isEnded } = adding.value;
  const isCut = isEnded && done < total;
  return (
    <div class="stack tight">
      <p role="status">
        {isEnded
          ? `${counted(added.length, "file")} added to ${label}${refused.length > 0 ? `, ${refused.length} refused` : ""}${isCut ? `; ${total - done} not sent` : ""}.`
          : `Adding to ${label}: ${done} of ${total}.`}
      </p>
      {!isEnded && (
        <div class="row">
          <progress max={total} value={done} aria-label="Files added" />
          <button type="button" onClick={cancelAdding}>
            Cancel
          </button>
        </div>
      )}
      {refused.length > 0 && (
        <ul class="refused" aria-label="Refused files">
          {refused.slice(0, SHOWN).map(({ name, reason }) => (
            <li key={name}>
              <strong>{name}</strong>: {reason}
            </li>
          ))}
          {refused.length > SHOWN && <li class="muted">and {refused.length - SHOWN} more</li>}
        </ul>
      )}
      {isEnded && (
        <div>
          <button
            type="button"
            class="small"
            onClick={() => {
              adding.value = undefined;
            }}
          >
            Clear
          </button>
        </div>
      )}
    </div>
  );
}

const SHOWN = 50;
