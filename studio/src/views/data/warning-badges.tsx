// Warnings of an image as small labels, each with its sentence.

import type { ImageWarning } from "../../../../src/studio/protocol.js";
import { WARNING_NAMES } from "./image-filter.js";

export function WarningBadges({ warnings }: { warnings: readonly ImageWarning[] }) {
  return (
    <ul class="badges" aria-label="Warnings">
      {warnings.map(({ kind, text }) => (
        <li key={text} class="badge" title={text}>
          {WARNING_NAMES[kind]}
          <span class="visually-hidden">: {text}</span>
        </li>
      ))}
    </ul>
  );
}
