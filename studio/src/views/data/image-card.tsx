// An image of the grid: picture, warnings, caption, and what it is trained at.

import { useState } from "preact/hooks";
import type { DataSetImage } from "../../../../src/studio/protocol.js";
import { CaptionEditor } from "./caption-editor.js";
import { CropPreview, describeCrop } from "./crop-preview.js";
import { showsCrops } from "./data-state.js";
import { WarningBadges } from "./warning-badges.js";

interface Props {
  dataSet: string;
  image: DataSetImage;
  isWritable: boolean;
  onOpen(): void;
  onRemove(): void;
}

/** Pixels of a thumbnail's longer side: twice what most screens show, for those that show more. */
const THUMBNAIL_SIDE = 384;

export function ImageCard({ dataSet, image, isWritable, onOpen, onRemove }: Props) {
  const { name, width, height, originalWidth, originalHeight, repeats } = image;
  /** Its own wish, against what all do. */
  const [own, setOwn] = useState<{ shows: boolean; all: boolean } | undefined>(undefined);
  const all = showsCrops.value;
  const showsCrop = own && own.all === all ? own.shows : all;
  return (
    <>
      <button type="button" class="frame" aria-label={`Look at ${name}`} onClick={onOpen}>
        <CropPreview dataSet={dataSet} image={image} side={THUMBNAIL_SIDE} showsCrop={showsCrop} />
      </button>
      <div class="about">
        <WarningBadges warnings={image.warnings} />
        <span class="muted size" title={describeCrop(image)}>
          {showsCrop ? `at ${width}×${height}` : `${originalWidth}×${originalHeight}`}
          {repeats > 1 && ` · ${repeats} times`}
        </span>
      </div>
      <CaptionEditor dataSet={dataSet} image={image} rows={3} />
      <div class="foot">
        <span class="name" title={name}>
          {name}
        </span>
        <button
          type="button"
          class="small"
          aria-label={`Show the crop of ${name}`}
          aria-pressed={showsCrop}
          title={describeCrop(image)}
          onClick={() => setOwn({ shows: !showsCrop, all })}
        >
          Crop
        </button>
        {isWritable && (
          <button type="button" class="small" aria-label={`Remove ${name}`} title="Remove" onClick={onRemove}>
            ✕
          </button>
        )}
      </div>
    </>
  );
}
