// The page's beginning: finds out what stands behind it, and shows the views.

import { render } from "preact";
import { App } from "./app.js";
import { openBackend } from "./open-backend.js";
import { connect, studio, tell } from "./store.js";

render(<App />, document.getElementById("app")!);
openBackend()
  .then(connect)
  .then(() => studio.value?.notes?.forEach((note) => void tell(note)))
  .catch((error: Error) => tell(error.message, true));
