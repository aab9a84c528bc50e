// The colours of the scheme in use, for canvases: they do not know light-dark().

import { signal } from "@preact/signals";

/** Counts how often the scheme has changed; what draws with its colours draws anew. */
export const schemeChanges = signal(0);

if (typeof matchMedia === "function") {
  const count = () => {
    schemeChanges.value++;
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", count);
  new MutationObserver(count).observe(document.documentElement, { attributeFilter: ["data-scheme"] });
}

/** A token's colour, `rgb(…)`: "--series-1". */
export function tokenColor(token: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(${token})`;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

/** A colour of `rgb(r, g, b)` with a share of opacity. */
export const translucent = (color: string, opacity: number): string =>
  color.replace(/^rgba?\(([^,]+),([^,]+),([^,)]+).*\)$/, `rgba($1,$2,$3, ${opacity})`);

/** The token of the n-th series; there are six. */
export const seriesToken = (index: number): string => `--series-${(index % 6) + 1}`;
