// What the data view knows: which set is looked at and how, what it holds, and what is being added. Outlives the view.

import { batch, computed, effect, signal, untracked } from "@preact/signals";
import type { AddedFiles, DataSetImage, DataSetQuery, DataSetView } from "../../../../src/studio/protocol.js";
import { addressOf, route } from "../../route.js";
import { attempt, backend, reconnections, refresh, studio, tell } from "../../store.js";
import { CaptionDrafts } from "./caption-drafts.js";
import { filterImages, type ImageFilter, NO_FILTER } from "./image-filter.js";

/** Files on their way into a set. */
interface Adding extends AddedFiles {
  label: string;
  done: number;
  total: number;
  isEnded: boolean;
}

const lastChosen = signal<string | undefined>(undefined);
/** Side of the images; by default that of the first model. */
const resolution = signal<number | undefined>(undefined);
const bucket = signal(false);
export const view = signal<DataSetView | undefined>(undefined);
export const loadError = signal<string | undefined>(undefined);
export const filter = signal<ImageFilter>(NO_FILTER);
/** Names that were shown under this filter, and stay. */
const shownBefore = signal<ReadonlySet<string>>(new Set());
export const showsCrops = signal(false);
export const adding = signal<Adding | undefined>(undefined);
export const drafts = new CaptionDrafts(saveCaption, tellOfGone);
effect(() => {
  if (reconnections.value > 0) void untracked(() => drafts.commitAll());
});

/** The set that the address names, else the one that was looked at last, else the first. */
export const chosen = computed(() => {
  const sets = studio.value?.dataSets ?? [];
  const named = route.value.view === "data" ? route.value.parameters.get("set") : null;
  return [named, lastChosen.value].find((id) => sets.some((set) => set.id === id)) ?? sets[0]?.id;
});

export const query = computed<Required<DataSetQuery>>(() => ({
  resolution: resolution.value ?? studio.value?.models[0]?.defaultSize ?? 512,
  bucket: bucket.value,
}));

export const shownImages = computed<DataSetImage[]>(() =>
  filterImages(view.value?.images ?? [], filter.value, shownBefore.value),
);

/** Looks at another set. */
export function choose(id: string): void {
  lastChosen.value = id;
  location.hash = addressOf("data", { set: id });
}

export function setQuery(changes: Partial<DataSetQuery>): void {
  if (changes.resolution !== undefined) resolution.value = changes.resolution;
  if (changes.bucket !== undefined) bucket.value = changes.bucket;
}

/** Looks for something else. */
export function setFilter(changes: Partial<ImageFilter>): void {
  batch(() => {
    filter.value = { ...filter.value, ...changes };
    shownBefore.value = new Set();
  });
}

/** img-2 before img-10. */
const byName = new Intl.Collator(undefined, { numeric: true });
let request = 0;

/** Reads the chosen set anew. */
export async function load(): Promise<void> {
  const id = chosen.value;
  const number = ++request;
  if (id === undefined) {
    view.value = undefined;
    return;
  }
  try {
    const found = await backend().dataSet(id, query.value);
    // Another one was asked for since.
    if (number !== request) return;
    batch(() => {
      const isSame = view.value?.id === id;
      // Nothing vanishes because it was mended; what was never filtered needs no memory.
      const isFiltered = filter.value.warning !== "all" || filter.value.text !== "";
      shownBefore.value = isSame && isFiltered ? new Set(shownImages.value.map(({ name }) => name)) : new Set();
      drafts.refresh(id, new Map(found.images.map(({ name, caption }) => [name, caption])));
      view.value = { ...found, images: found.images.sort((a, b) => byName.compare(a.name, b.name)) };
      loadError.value = undefined;
    });
  } catch (error) {
    if (number !== request) return;
    batch(() => {
      loadError.value = (error as Error).message;
      if (view.value?.id !== id) view.value = undefined;
    });
  }
}

let waiting: ReturnType<typeof setTimeout> | undefined;

/** Reads the set once things have calmed down. */
export function loadSoon(delayMs = 400): void {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    if (!adding.value || adding.value.isEnded) void load();
  }, delayMs);
}

async function saveCaption(dataSet: string, image: string, caption: string): Promise<void> {
  await backend().setCaption(dataSet, image, caption);
  const shown = view.value;
  if (shown?.id === dataSet) {
    const images = shown.images.map((known) => (known.name === image ? { ...known, caption } : known));
    view.value = { ...shown, images };
  }
  // Its warnings may be others now.
  loadSoon(1000);
}

/** Most of a caption that is told. */
const TOLD = 300;

function tellOfGone(image: string, text: string): void {
  const told = text.length > TOLD ? `${text.slice(0, TOLD)}…` : text;
  tell(`${image} is in its data set no more. What you typed for it was not saved: ${told}`, true);
}

/** Takes an image and its caption out of its set. */
export async function removeImage(image: string): Promise<void> {
  const id = chosen.value;
  if (id === undefined) return;
  await attempt(async () => {
    await backend().removeImage(id, image);
    const shown = view.value;
    if (shown?.id === id) view.value = { ...shown, images: shown.images.filter(({ name }) => name !== image) };
    await refresh();
  });
  await load();
}

let isCancelled = false;

/** Ends adding after the file that is on its way. */
export function cancelAdding(): void {
  isCancelled = true;
}

/**
 * Adds files to a set, and looks at it.
 *
 * @param target - The set, or the name of a new one.
 * @returns What became of them; undefined where there is no such set.
 */
export async function addFiles(
  target: { id: string } | { label: string },
  files: readonly File[],
): Promise<(AddedFiles & { set: string }) | undefined> {
  isCancelled = false;
  return attempt(async () => {
    const known = studio.value?.dataSets ?? [];
    const set = "id" in target ? target.id : (await backend().createDataSet(target.label)).id;
    const label = "id" in target ? (known.find(({ id }) => id === set)?.label ?? set) : target.label;
    let now: Adding = { label, done: 0, total: files.length, added: [], refused: [], isEnded: false };
    adding.value = now;
    for (const file of files) {
      if (isCancelled) break;
      const part = await addOne(set, file);
      now = {
        ...now,
        done: now.done + 1,
        added: [...now.added, ...part.added],
        refused: [...now.refused, ...part.refused],
      };
      adding.value = now;
    }
    adding.value = { ...now, isEnded: true };
    await refresh();
    choose(set);
    await load();
    return { added: now.added, refused: now.refused, set };
  });
}

/** One that cannot be sent keeps none of the others back. */
async function addOne(set: string, file: File): Promise<AddedFiles> {
  try {
    return await backend().addFiles(set, [file]);
  } catch (error) {
    return { added: [], refused: [{ name: file.name, reason: (error as Error).message }] };
  }
}
