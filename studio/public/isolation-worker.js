// Adds to what a static host sends the two headers that threads of WebAssembly need. Keeps nothing, and changes nothing else.

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (new URL(request.url).origin !== self.location.origin) return;
  // Chromium asks so for what only the cache may answer.
  if (request.cache === "only-if-cached" && request.mode !== "same-origin") return;
  event.respondWith(
    fetch(request).then((response) => {
      if (response.type === "opaque" || response.type === "opaqueredirect" || response.type === "error")
        return response;
      const headers = new Headers(response.headers);
      headers.set("Cross-Origin-Opener-Policy", "same-origin");
      headers.set("Cross-Origin-Embedder-Policy", "require-corp");
      const hasBody = ![101, 204, 205, 304].includes(response.status);
      const { status, statusText } = response;
      return new Response(hasBody ? response.body : null, { status, statusText, headers });
    }),
  );
});
