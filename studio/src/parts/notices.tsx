// Messages over the page, until they are dismissed.

import { dismiss, notices } from "../store.js";

export function Notices() {
  return (
    <div class="notices" role="log" aria-live="polite" aria-label="Messages">
      {notices.value.map(({ id, isBad, text }) => (
        <div key={id} class={isBad ? "notice bad" : "notice"} role={isBad ? "alert" : undefined}>
          <span>{text}</span>
          <button type="button" aria-label="Dismiss the message" onClick={() => dismiss(id)}>
            ✕
          </button>
        </div>
      ))}
    </div>
  );
}
