// An image as a source has it, before a training gives it a shape.

import type { Skipped } from "./folder-walk.js";
import type { ImageShape } from "./image-variant.js";

/** Where an image's caption comes from. */
export type FolderCaptionSource =
  | "textFile"
  | "metadata"
  | "column"
  | "instancePrompt"
  | "regularizationPrompt"
  | "folderName"
  | "fileName";

/** What an image file is like. */
export interface ImageTraits {
  /** Upright pixels; a drawing's are its proportions only. */
  own: ImageShape;
  /** A drawing (SVG) is made at any size. */
  isDrawing: boolean;
  /** Turned upright, as its EXIF orientation says. */
  isTurned: boolean;
  /** Has more pictures than the first, which is the one that is read. */
  isAnimated: boolean;
  /** Has parts that one sees through. */
  isTransparent: boolean;
}

/** An image file that was read. */
export interface DescribedImage {
  traits: ImageTraits;
  /** SHA-256 of the file, in hex. */
  hash: string;
}

/** One image of a source. */
export interface SourceImage extends ImageTraits {
  /** Where it lies in the source, with forward slashes: what tells it from every other image there. */
  path: string;
  /** Without what goes before and after every caption. */
  caption: string;
  captionSource: FolderCaptionSource;
  /** SHA-256 of the file, in hex. */
  contentHash: string;
  /** Shows the class at large. */
  isRegularization: boolean;
  /** How often it comes in an epoch, 1 or more. */
  repeats: number;
  /** SHA-256 of the file of its mask, where it has one. */
  maskHash?: string;
  /** The bytes of the file. @throws {FormatError} If it has gone or cannot be read. */
  read(): Promise<Uint8Array>;
  /** The bytes of its mask. */
  readMask?(): Promise<Uint8Array>;
  /** The file, for messages. */
  file: string;
}

/** What a source of images holds. */
export interface OpenedSource {
  readonly images: readonly SourceImage[];
  /** What lies there and is not used, with the reason. */
  readonly skipped: readonly Skipped[];
}

/** How captions and masks of any source are taken. */
export interface SourceOptions {
  /** Caption of images that have none of their own. */
  instancePrompt?: string | undefined;
  /** Column of captions in tables: Parquet, `metadata.jsonl` and `.csv`; found by itself where it is named as usual. */
  captionColumn?: string | undefined;
  /** Caption of regularization images that have none of their own: the class, such as "photo of a dog". */
  regularizationPrompt?: string | undefined;
  /** Whether masks are used; otherwise they are left out, and said. */
  mask?: boolean | undefined;
  /** Whether all images are regularization images; otherwise those in a folder named so are. */
  isRegularization?: boolean;
  /**
   * Folder for what is known of images from one time to the next, and for drawn icons; the user's cache folder by default,
   * `false` for none.
   */
  cache?: string | false | undefined;
  /** Called after each image that was read. */
  onProgress?: ((done: number, total: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}
