// Drawing with what was trained: a form, and what came of it.

import { useEffect } from "preact/hooks";
import { addressOf, route } from "../../route.js";
import { reconnections } from "../../store.js";
import { DrawFields } from "./draw-fields.js";
import { DrawingResult } from "./drawing-result.js";
import { drawings, form, prepareDrawing } from "./drawings.js";
import { SettingsDrop } from "./settings-drop.js";
import "./try.css";

export function TryPage() {
  const adapter = route.value.parameters.get("adapter");
  const model = route.value.parameters.get("model");
  useEffect(() => {
    void prepareDrawing();
  }, [reconnections.value]);
  useEffect(() => {
    if (adapter === null) return;
    form.value = { ...form.value, ...(model && { model }), adapters: { [adapter]: 1 } };
    // Taken over once: the form is the user's from here on.
    history.replaceState(undefined, "", addressOf("try"));
  }, [adapter, model]);
  return (
    <SettingsDrop>
      <div class="columns try">
        <div class="stack">
          <h1>Try</h1>
          <DrawFields />
        </div>
        <section class="stack" aria-label="Drawings">
          {drawings.value.length === 0 && (
            <p class="muted">
              What is drawn appears here, with the settings it was made with inside the file. Drop a picture of fera,
              A1111 or ComfyUI anywhere on this page to take its settings.
            </p>
          )}
          {drawings.value.map((drawing) => (
            <DrawingResult key={drawing.job} drawing={drawing} />
          ))}
        </section>
      </div>
    </SettingsDrop>
  );
}
