// Images as the studio's backends describe them, for tests of its page.

import type { DataSetImage, ImageWarningKind } from "../../src/studio/protocol.js";

/** A square image of 8 pixels that is trained on whole. */
export const dataSetImage = (name: string, caption: string, ...kinds: ImageWarningKind[]): DataSetImage => ({
  ...{ name, caption, isEditable: true, originalWidth: 8, originalHeight: 8, width: 8, height: 8, repeats: 1 },
  crop: { left: 0, top: 0, width: 1, height: 1 },
  warnings: kinds.map((kind) => ({ kind, text: kind })),
});
