// Light, dark, or as the system has it; kept for the next visit.

import { signal } from "@preact/signals";

const SCHEMES = ["system", "light", "dark"] as const;
type Scheme = (typeof SCHEMES)[number];
const KEY = "fera-scheme";
const scheme = signal<Scheme>(SCHEMES.find((name) => name === localStorage.getItem(KEY)) ?? "system");

function apply(): void {
  if (scheme.value === "system") delete document.documentElement.dataset.scheme;
  else document.documentElement.dataset.scheme = scheme.value;
}
apply();

export function SchemeButton() {
  const next = () => {
    scheme.value = SCHEMES[(SCHEMES.indexOf(scheme.value) + 1) % SCHEMES.length]!;
    localStorage.setItem(KEY, scheme.value);
    apply();
  };
  return (
    <button type="button" onClick={next} aria-label={`Colours: ${scheme.value}`}>
      {{ system: "◐", light: "☀", dark: "☾" }[scheme.value]}
    </button>
  );
}
