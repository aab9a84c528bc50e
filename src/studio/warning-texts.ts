// What is worth a second look in an image, in sentences: the server's and the tab's. Pure, and in the page.

import type { ImageWarning, ImageWarningKind } from "./protocol.js";

/** Pixels. */
interface Size {
  width: number;
  height: number;
}

/** What is known of an image. */
export interface WarnedImage {
  /** The file's own pixels, upright. */
  own: Size;
  /** By how much it is scaled up; 1 or less where it is not. */
  upscaling: number;
  /** Share of the picture that the cut takes away, where that is much. */
  lost: number | undefined;
  /** Names of other files with the same content. */
  copies: readonly string[];
  /** As it is trained with. */
  caption: string;
  /** Whether the caption is made of the file's name. */
  isUncaptioned: boolean;
  isBlurred: boolean;
  isTurned: boolean;
  isAnimated: boolean;
  isTransparent: boolean;
}

/** The warnings of an image, those first that spoil most. */
export function warningTexts(image: WarnedImage): ImageWarning[] {
  const { own, upscaling, lost, copies, caption, isUncaptioned } = image;
  const warnings: ImageWarning[] = [];
  const warn = (kind: ImageWarningKind, holds: boolean, text: string) => {
    if (holds) warnings.push({ kind, text });
  };
  const more = copies.length > 1 ? ` and ${copies.length - 1} more` : "";
  warn(
    "duplicate",
    copies.length > 0,
    `The same file as ${copies[0]}${more}: it counts ${copies.length + 1} times in an epoch.`,
  );
  warn("uncaptioned", isUncaptioned, `It has no caption: it is trained on its file name, "${caption}".`);
  warn("emptyCaption", caption === "", "Its caption is empty: it is trained without words.");
  const factor = Number(upscaling.toPrecision(2));
  const size = `${own.width}×${own.height}`;
  warn("tiny", upscaling > 1, `It has ${size} pixels and is scaled up ${factor} times, which blurs it.`);
  // One that is scaled up is blurred for that reason.
  warn("blurred", image.isBlurred && upscaling <= 1, "It looks blurred at the size it is trained at.");
  warn("cut", lost !== undefined, `${Math.round(100 * (lost ?? 0))} % of it are cut off.`);
  warn("turned", image.isTurned, "It was taken sideways or upside down, and is turned upright, as its EXIF data say.");
  warn("animated", image.isAnimated, "It has several frames, of which the first is taken.");
  warn("transparent", image.isTransparent, "It has transparent parts, which are put on white.");
  return warnings;
}
