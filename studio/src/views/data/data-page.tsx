// The view of data sets: which there are, what a training sees of one, and its captions.

import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { counted } from "../../../../src/cli/format.js";
import type { DataSetView } from "../../../../src/studio/protocol.js";
import { ConfirmDialog, type Question } from "../../parts/confirm-dialog.js";
import { addressOf } from "../../route.js";
import { attempt, studio, tell } from "../../store.js";
import { AddPanel } from "./add-panel.js";
import { TrainedSizes } from "./bucket-table.js";
import { CaptionAllDialog } from "./caption-all-dialog.js";
import {
  addFiles,
  choose,
  chosen,
  drafts,
  load,
  loadError,
  loadSoon,
  query,
  removeImage,
  shownImages,
  view,
} from "./data-state.js";
import { type Dropped, droppedFiles, type PlacedFile, placeFiles } from "./dropped-files.js";
import { FilterBar } from "./filter-bar.js";
import { ImageDialog } from "./image-dialog.js";
import { ImageGrid } from "./image-grid.js";
import { TargetDialog } from "./target-dialog.js";
import "./data.css";

const question = signal<Question | undefined>(undefined);

export function DataPage() {
  const [dropped, setDropped] = useState<Dropped | undefined>(undefined);
  const [opened, setOpened] = useState<string | undefined>(undefined);
  const [isChangingAll, setChangingAll] = useState(false);
  const sets = studio.value?.dataSets ?? [];
  const current = sets.find(({ id }) => id === chosen.value);
  const { resolution, bucket } = query.value;
  const isMore = useDrops((found) => take(found, setDropped));

  useEffect(() => void load(), [chosen.value, resolution, bucket]);
  // Somebody added or wrote something.
  useEffect(() => loadSoon(), [studio.value]);
  useUnsavedWarning();

  const shown = view.value?.id === chosen.value ? view.value : undefined;
  const remove = (name: string) => {
    question.value = {
      title: `Remove ${name}?`,
      text:
        studio.value?.kind === "server"
          ? "The image and its caption leave the data set. They stay on the disk in its hidden folder .removed."
          : "The image and its caption are deleted. This cannot be undone.",
      action: "Remove",
      onConfirm: () => void removeImage(name),
    };
  };
  return (
    <div class="columns data-page">
      <div class="stack">
        <h1>Data</h1>
        <section class="panel stack tight" aria-label="Chosen data set">
          <label>
            Data set
            <select
              value={chosen.value ?? ""}
              disabled={sets.length === 0}
              onChange={(event) => choose(event.currentTarget.value)}
            >
              {sets.length === 0 && <option value="">none yet</option>}
              {sets.map(({ id, label, images }) => (
                <option key={id} value={id}>
                  {label} ({counted(shown?.id === id ? shown.images.length : images, "image")})
                </option>
              ))}
            </select>
          </label>
          {current && current.id !== current.label && <p class="muted path">{current.id}</p>}
          {current && !current.isWritable && (
            <p class="muted">Its files cannot be written: captions are shown as they are.</p>
          )}
          {current && (
            <p>
              <a href={addressOf("train", { data: current.id })}>Train on it</a>
            </p>
          )}
        </section>
        <AddPanel onFiles={(found) => take(found, setDropped)} />
        <TrainedSizes shown={shown} />
        {shown && <Skipped skipped={shown.skipped} />}
      </div>
      <div class="stack">
        <UnsavedBanner />
        {loadError.value !== undefined && (
          <p class="problem" role="alert">
            {loadError.value}
          </p>
        )}
        {shown && shown.images.length > 0 ? (
          <>
            <FilterBar images={shown.images} onChangeAll={() => setChangingAll(true)} />
            <ImageGrid
              dataSet={shown.id}
              images={shownImages.value}
              isWritable={shown.isWritable}
              onOpen={setOpened}
              onRemove={remove}
            />
          </>
        ) : (
          <EmptyPlace hasSet={current !== undefined} isLoaded={shown !== undefined || loadError.value !== undefined} />
        )}
      </div>
      {isMore && <div class="drop-hint">Drop the files to add them</div>}
      {dropped && (
        <TargetDialog
          dropped={dropped}
          current={current?.isWritable ? current : undefined}
          onChoose={(target) => void addFiles(target, dropped.files)}
          onClose={() => setDropped(undefined)}
        />
      )}
      {opened !== undefined && shown && (
        <ImageDialog
          dataSet={shown.id}
          images={shownImages.value}
          name={opened}
          isWritable={shown.isWritable}
          onMove={setOpened}
          onRemove={remove}
          onClose={() => setOpened(undefined)}
        />
      )}
      {isChangingAll && shown && (
        <CaptionAllDialog
          dataSet={shown.id}
          images={shownImages.value}
          total={shown.images.length}
          onClose={() => setChangingAll(false)}
        />
      )}
      {question.value && (
        <ConfirmDialog
          question={question.value}
          onClose={() => {
            question.value = undefined;
          }}
        />
      )}
    </div>
  );
}

function take(found: readonly PlacedFile[], setDropped: (dropped: Dropped) => void): void {
  const placed = placeFiles(found);
  if (placed.files.length > 0) setDropped(placed);
  else tell("There are no files in what was dropped.", true);
}

/** Files that are dropped anywhere on the page. @returns Whether some are over it. */
function useDrops(onFiles: (files: PlacedFile[]) => void): boolean {
  const [isOver, setOver] = useState(false);
  useEffect(() => {
    const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const over = (event: DragEvent) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      setOver(true);
    };
    const leave = (event: DragEvent) => {
      // Only on the way out of the window there is nothing that is entered.
      if (event.relatedTarget === null) setOver(false);
    };
    const drop = (event: DragEvent) => {
      setOver(false);
      if (!hasFiles(event) || !event.dataTransfer) return;
      event.preventDefault();
      const reading = droppedFiles(event.dataTransfer);
      void attempt(() => reading).then((files) => files && onFiles(files));
    };
    addEventListener("dragover", over);
    addEventListener("dragleave", leave);
    addEventListener("drop", drop);
    return () => {
      removeEventListener("dragover", over);
      removeEventListener("dragleave", leave);
      removeEventListener("drop", drop);
    };
  }, []);
  return isOver;
}

/** Asks before the page is left with captions that are not saved. */
function useUnsavedWarning(): void {
  const isUnsaved = drafts.unsaved.value > 0;
  useEffect(() => {
    if (!isUnsaved) return;
    const warn = (event: BeforeUnloadEvent) => event.preventDefault();
    addEventListener("beforeunload", warn);
    return () => removeEventListener("beforeunload", warn);
  }, [isUnsaved]);
}

function UnsavedBanner() {
  const failed = drafts.failed.value;
  if (failed === 0) return null;
  return (
    <div class="row panel unsaved" role="alert">
      <span>{counted(failed, "caption")} could not be saved. What you typed is kept here until it can be.</span>
      <button type="button" onClick={() => void drafts.commitAll()}>
        Try again
      </button>
    </div>
  );
}

function Skipped({ skipped }: { skipped: DataSetView["skipped"] }) {
  if (skipped.length === 0) return null;
  return (
    <details class="panel">
      <summary>{counted(skipped.length, "file")} not used</summary>
      <ul class="refused" aria-label="Files that are not used">
        {skipped.slice(0, 200).map(({ path, reason }) => (
          <li key={path}>
            <strong>{path}</strong>: {reason}
          </li>
        ))}
        {skipped.length > 200 && <li class="muted">and {skipped.length - 200} more</li>}
      </ul>
    </details>
  );
}

function EmptyPlace({ hasSet, isLoaded }: { hasSet: boolean; isLoaded: boolean }) {
  const text = !hasSet
    ? "There are no images yet. Drop a folder of them here, choose one, or draw a few pictures: ten to twenty of one subject or style are enough to begin with."
    : isLoaded
      ? "This data set has no images. Drop some here."
      : "Looking at the images…";
  return (
    <p class="empty-place" role="status">
      {text}
    </p>
  );
}
