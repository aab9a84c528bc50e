// The same training on the command line, and what run.json will hold.

import { attempt, tell } from "../../store.js";
import { writeSettings } from "./settings-file.js";
import { checked } from "./train-state.js";

export function CommandPanel() {
  if (!checked.value) return null;
  const { command, settings } = checked.value;
  const copy = () =>
    attempt(async () => {
      if (!navigator.clipboard) throw new Error("This browser does not let the page copy: select the command instead.");
      await navigator.clipboard.writeText(command);
      tell("The command is copied.");
    });
  return (
    <section class="panel stack tight" aria-labelledby="command-title">
      <div class="row between">
        <h2 id="command-title">On the command line</h2>
        <button
          type="button"
          class="small"
          aria-label="Copy the command"
          disabled={!command}
          onClick={() => void copy()}
        >
          Copy
        </button>
      </div>
      {command ? (
        <pre class="command">{command}</pre>
      ) : (
        <p class="muted">The command appears once there are no problems.</p>
      )}
      <details>
        <summary>run.json</summary>
        <pre class="run-json">{writeSettings(settings)}</pre>
      </details>
    </section>
  );
}
