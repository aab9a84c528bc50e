// Makes the page cross-origin isolated on hosts that send no such headers: by a service worker that adds them.

const TRIED = "fera-studio-isolation";

/**
 * Registers the service worker and loads the page anew, once, where that can help. Does nothing where the page is isolated,
 * or the browser or the address (plain HTTP but localhost) has no service workers.
 */
export async function isolate(): Promise<void> {
  if (globalThis.crossOriginIsolated) return sessionStorage.removeItem(TRIED);
  if (!globalThis.isSecureContext || !navigator.serviceWorker) return;
  // It did not help the last time.
  if (sessionStorage.getItem(TRIED)) return;
  try {
    await navigator.serviceWorker.register(new URL("isolation-worker.js", document.baseURI));
    await navigator.serviceWorker.ready;
  } catch {
    // As where a host serves no such file: then without threads, which the page says.
    return;
  }
  sessionStorage.setItem(TRIED, "1");
  location.reload();
  // Nothing else is begun in the page that goes.
  await new Promise(() => {});
}
