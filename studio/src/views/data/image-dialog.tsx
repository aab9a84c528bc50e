// One image, large, with everything that is known of it; arrow keys go through the set.

import { useEffect, useRef, useState } from "preact/hooks";
import type { DataSetImage } from "../../../../src/studio/protocol.js";
import { CaptionEditor } from "./caption-editor.js";
import { CropPreview, describeCrop } from "./crop-preview.js";
import { WARNING_NAMES } from "./image-filter.js";

interface Props {
  dataSet: string;
  images: readonly DataSetImage[];
  name: string;
  isWritable: boolean;
  onMove(name: string): void;
  onRemove(name: string): void;
  onClose(): void;
}

const SIDE = 1024;

export function ImageDialog({ dataSet, images, name, isWritable, onMove, onRemove, onClose }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [showsCrop, setShowsCrop] = useState(true);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  const index = images.findIndex((image) => image.name === name);
  const image = images[index];
  useEffect(() => {
    if (!image) dialog.current?.close();
  }, [image]);
  const move = (by: number) => {
    const next = images[index + by];
    if (next) onMove(next.name);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const isTyping = event.target instanceof HTMLTextAreaElement;
    // Arrows move the caret in a text; the page keys go through the set from there, too.
    const by = { ArrowLeft: isTyping ? 0 : -1, ArrowRight: isTyping ? 0 : 1, PageUp: -1, PageDown: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    move(by);
  };
  return (
    <dialog ref={dialog} class="image-dialog" aria-label={`Image ${name}`} onClose={onClose} onKeyDown={onKeyDown}>
      {image && (
        <>
          <div class="frame">
            <CropPreview key={name} dataSet={dataSet} image={image} side={SIDE} showsCrop={showsCrop} />
          </div>
          <div class="stack">
            <div class="row">
              <button type="button" aria-label="Previous image" disabled={index === 0} onClick={() => move(-1)}>
                ←
              </button>
              <span role="status">
                {index + 1} of {images.length}
              </span>
              <button
                type="button"
                aria-label="Next image"
                disabled={index === images.length - 1}
                onClick={() => move(1)}
              >
                →
              </button>
              <button type="button" class="end" onClick={() => dialog.current?.close()}>
                Close
              </button>
            </div>
            <h2>{name}</h2>
            <CaptionEditor key={name} dataSet={dataSet} image={image} rows={5} />
            <p>
              {describeCrop(image)} {image.repeats > 1 && `It comes ${image.repeats} times in an epoch.`}
            </p>
            {image.warnings.length > 0 && (
              <ul class="warnings">
                {image.warnings.map(({ kind, text }) => (
                  <li key={text}>
                    <span class="badge">{WARNING_NAMES[kind]}</span> {text}
                  </li>
                ))}
              </ul>
            )}
            <div class="row">
              <label class="tick">
                <input
                  type="checkbox"
                  checked={showsCrop}
                  onChange={(event) => setShowsCrop(event.currentTarget.checked)}
                />
                Dim what is cut off
              </label>
              {isWritable && (
                <button type="button" class="end" onClick={() => onRemove(name)}>
                  Remove
                </button>
              )}
            </div>
            <p class="muted">
              Arrow keys go through the images, Page Up and Page Down also while you type. Ctrl+Enter saves, Escape
              takes back.
            </p>
          </div>
        </>
      )}
    </dialog>
  );
}
