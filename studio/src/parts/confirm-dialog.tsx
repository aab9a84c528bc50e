// A question before something that cannot be undone.

import { useEffect, useRef } from "preact/hooks";

/** What is asked, and what its button says. */
export interface Question {
  title: string;
  text: string;
  action: string;
  onConfirm(): void;
}

/** Escape, or Cancel, leaves all as it is; the button that changes nothing has the focus. */
export function ConfirmDialog({ question, onClose }: { question: Question; onClose(): void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  // A dialog that goes with its view is answered by that.
  useEffect(() => {
    dialog.current?.showModal();
    return onClose;
  }, []);
  const { title, text, action, onConfirm } = question;
  return (
    <dialog ref={dialog} class="asking" aria-label={title} onClose={onClose}>
      <h2>{title}</h2>
      <p>{text}</p>
      <div class="row">
        <button type="button" onClick={() => dialog.current?.close()}>
          Cancel
        </button>
        <button
          type="button"
          class="primary"
          onClick={() => {
            dialog.current?.close();
            onConfirm();
          }}
        >
          {action}
        </button>
      </div>
    </dialog>
  );
}
