// Which view is shown, and of what: the part of the address behind the hash, so that reloading and going back work.

import { signal } from "@preact/signals";

export const VIEWS = ["data", "train", "watch", "try"] as const;
export type ViewName = (typeof VIEWS)[number];

/** `#/watch?run=lora-1` */
export interface Route {
  view: ViewName;
  parameters: URLSearchParams;
}

export const route = signal<Route>(parseRoute(location.hash));

addEventListener("hashchange", () => {
  route.value = parseRoute(location.hash);
});

/** Unknown views are the first one. */
export function parseRoute(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?");
  const view = VIEWS.find((name) => name === path) ?? VIEWS[0];
  return { view, parameters: new URLSearchParams(query) };
}

/** The address of a view, for links. */
export function addressOf(view: ViewName, parameters: Readonly<Record<string, string>> = {}): string {
  const query = new URLSearchParams(parameters).toString();
  return `#/${view}${query && `?${query}`}`;
}
