// The backend in the page itself: a worker trains and draws, and files lie in the browser's own storage (OPFS).

import type { Backend } from "../backend.js";

export const TabBackend = {
  open(): Promise<Backend> {
    return Promise.reject(new Error("Training in a tab is not there yet."));
  },
};
