// What the names of folders and files say under the conventions of kohya's scripts and OneTrainer. Pure.

import path from "node:path";

/** What the folders above an image say of it. */
export interface FolderMeaning {
  /** kohya's `10_sks dog`: the number. Folders inside it inherit. Default 1. */
  repeats: number;
  /** The words after the number. */
  words?: string;
  /** Below a folder `reg`, `reg_images`, `regularization` or `regularization_images`. */
  isRegularization: boolean;
}

/** Higher numbers are taken for years and the like. */
const MOST_REPEATS = 1000;
const REGULARIZATION = /^(?:reg|reg_images|regularization|regularization_images|regularisation)$/i;
const MASK_FOLDER = /^masks?$/i;
/** `NAME.mask.png`, and OneTrainer's `NAME-masklabel.png`. */
const MASK_NAME = /^(.+?)(?:\.mask|-masklabel)$/i;
/** OneTrainer's images for inpainting models. */
const CONDITION_NAME = /-condlabel$/i;

/** @param image - Relative to the data folder, with forward slashes. */
export function meaningOfFolders(image: string): FolderMeaning {
  const folders = foldersOf(image);
  let meaning: FolderMeaning = { repeats: 1, isRegularization: folders.some((folder) => REGULARIZATION.test(folder)) };
  for (const folder of folders) {
    const [, number, words] = /^(\d+)_(.+)$/.exec(folder) ?? [];
    const repeats = Number(number);
    if (words === undefined || !(repeats >= 1 && repeats <= MOST_REPEATS)) continue;
    meaning = { ...meaning, repeats, words: words.trim() };
  }
  return meaning;
}

/** Images, and those among the files that are masks of them. */
export interface SortedImages {
  images: string[];
  /** By the image's path. */
  masks: Map<string, string>;
  /** Named as masks, but of no image; or more than one for one image. */
  unused: { path: string; reason: string }[];
}

/**
 * Tells masks from images by their names: `a.mask.png` and `a-masklabel.png` beside an image `a.*`; below a folder `mask`
 * or `masks` of the folder P a file of an image's name, at the same place below P, or of the only one so named below P.
 *
 * @param files - Image files relative to the data folder, with forward slashes.
 */
export function sortMasks(files: readonly string[]): SortedImages {
  const candidates = new Map<string, string | undefined>();
  const unused: SortedImages["unused"] = [];
  const images: string[] = [];
  for (const file of files) {
    const { dir, name } = path.posix.parse(file);
    const folders = foldersOf(file);
    const maskFolder = folders.findIndex((folder) => MASK_FOLDER.test(folder));
    const named = MASK_NAME.exec(name)?.[1];
    if (CONDITION_NAME.test(name)) {
      unused.push({ path: file, reason: "is an image for inpainting models (-condlabel), which are not trained" });
    } else if (named !== undefined) candidates.set(file, path.posix.join(dir, named));
    else if (maskFolder >= 0) candidates.set(file, undefined);
    else images.push(file);
  }
  const byStem = new Map<string, string[]>();
  const byName = new Map<string, string[]>();
  for (const image of images) {
    push(byStem, stemOf(image), image);
    push(byName, path.posix.parse(image).name, image);
  }
  const masks = new Map<string, string>();
  for (const [file, stem] of candidates) {
    const found = stem === undefined ? imagesOfMask(file, byStem, byName) : (byStem.get(stem) ?? []);
    if (found.length === 0) unused.push({ path: file, reason: "is a mask by its name, but of no image" });
    for (const image of found) {
      const other = masks.get(image);
      if (other === undefined) masks.set(image, file);
      else unused.push({ path: file, reason: `is not used: ${path.posix.basename(other)} is the mask already` });
    }
  }
  return { images, masks, unused };
}

function imagesOfMask(
  file: string,
  byStem: ReadonlyMap<string, string[]>,
  byName: ReadonlyMap<string, string[]>,
): string[] {
  const folders = foldersOf(file);
  const at = folders.findIndex((folder) => MASK_FOLDER.test(folder));
  const parent = folders.slice(0, at).join("/");
  const { name } = path.posix.parse(file);
  const same = byStem.get(path.posix.join(parent, ...folders.slice(at + 1), name));
  if (same) return same;
  const below = (byName.get(name) ?? []).filter((image) => parent === "" || image.startsWith(`${parent}/`));
  return below.length === 1 ? below : [];
}

/** `a/cat.png` → `a/cat`, under which its caption files are known. */
export function stemOf(file: string): string {
  const { dir, name } = path.posix.parse(file);
  return path.posix.join(dir, name);
}

const foldersOf = (file: string): string[] => file.split("/").slice(0, -1);

function push(lists: Map<string, string[]>, key: string, value: string): void {
  const list = lists.get(key);
  if (list) list.push(value);
  else lists.set(key, [value]);
}
