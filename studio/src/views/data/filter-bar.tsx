// What is shown of a set, and how many there are of what.

import { counted } from "../../../../src/cli/format.js";
import type { DataSetImage } from "../../../../src/studio/protocol.js";
import { filter, setFilter, shownImages, showsCrops } from "./data-state.js";
import { countWarnings, type ImageFilter, WARNING_NAMES } from "./image-filter.js";

interface Props {
  images: readonly DataSetImage[];
  onChangeAll(): void;
}

export function FilterBar({ images, onChangeAll }: Props) {
  const { text, warning } = filter.value;
  const warned = images.filter(({ warnings }) => warnings.length > 0).length;
  const counts = countWarnings(images);
  // What is looked for stays to be seen when the last of its kind is mended.
  if (warning !== "all" && warning !== "any" && !counts.some(([kind]) => kind === warning)) counts.push([warning, 0]);
  const shown = shownImages.value.length;
  return (
    <search class="filter-bar">
      <label>
        <span class="visually-hidden">Search names and captions</span>
        <input
          type="search"
          value={text}
          placeholder="Search names and captions"
          onInput={(event) => setFilter({ text: event.currentTarget.value })}
        />
      </label>
      <label>
        <span class="visually-hidden">Show</span>
        <select
          value={warning}
          onChange={(event) => setFilter({ warning: event.currentTarget.value as ImageFilter["warning"] })}
        >
          <option value="all">All images ({images.length})</option>
          <option value="any">With warnings ({warned})</option>
          {counts.map(([kind, count]) => (
            <option key={kind} value={kind}>
              {WARNING_NAMES[kind]} ({count})
            </option>
          ))}
        </select>
      </label>
      <label class="tick">
        <input
          type="checkbox"
          checked={showsCrops.value}
          onChange={(event) => {
            showsCrops.value = event.currentTarget.checked;
          }}
        />
        Show crops
      </label>
      <button type="button" disabled={!images.some(({ isEditable }) => isEditable)} onClick={onChangeAll}>
        Change many captions…
      </button>
      <span class="muted count" role="status">
        {shown === images.length ? counted(shown, "image") : `${shown} of ${counted(images.length, "image")}`}
      </span>
    </search>
  );
}
