// Chooses the backend: the server that served the page, or the page's own worker where nothing answers under api/.

import type { Backend } from "./backend.js";

/** @throws {Error} If a server answers, but not to this page. */
export async function openBackend(): Promise<Backend> {
  const answer = await fetch("api/state").catch(() => undefined);
  const isServer = answer?.headers.get("content-type")?.startsWith("application/json") ?? false;
  if (isServer) {
    const { ServerBackend } = await import("./server/server-backend.js");
    return new ServerBackend();
  }
  const { TabBackend } = await import("./tab/tab-backend.js");
  return TabBackend.open();
}
