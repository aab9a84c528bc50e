// Captions as they are typed, apart from the cards that show them: what is typed outlives a card that is scrolled away, a view that
// is left, and a failure to save.

import { type Signal, signal } from "@preact/signals";

/** A caption under way. */
export interface CaptionDraft {
  text: string;
  /** What the file holds. */
  saved: string;
  state: "saved" | "edited" | "saving" | "failed";
  /** Why it is not saved. */
  error?: string;
}

/** Where a caption belongs. */
interface Place {
  dataSet: string;
  image: string;
}

export class CaptionDrafts {
  readonly #drafts = new Map<string, Signal<CaptionDraft>>();
  readonly #places = new Map<string, Place>();
  /** How many are not saved. */
  readonly unsaved = signal(0);
  /** How many of them could not be. */
  readonly failed = signal(0);

  /**
   * @param save - Writes one; rejects with what can be shown.
   * @param onGone - Told of what was typed for an image that is gone by now.
   */
  constructor(
    readonly save: (dataSet: string, image: string, caption: string) => Promise<void>,
    readonly onGone: (image: string, text: string) => void = () => {},
  ) {}

  /** The draft of a caption; begun from what the file holds. */
  of(dataSet: string, image: string, saved: string): Signal<CaptionDraft> {
    const key = JSON.stringify([dataSet, image]);
    let draft = this.#drafts.get(key);
    if (!draft) {
      draft = signal<CaptionDraft>({ text: saved, saved, state: "saved" });
      this.#drafts.set(key, draft);
      this.#places.set(key, { dataSet, image });
    }
    return draft;
  }

  /** Takes what the file holds now; what is being edited stays. */
  refresh(dataSet: string, captions: ReadonlyMap<string, string>): void {
    for (const [key, draft] of this.#drafts) {
      const place = this.#places.get(key)!;
      if (place.dataSet !== dataSet) continue;
      const saved = captions.get(place.image);
      const { state, text } = draft.value;
      if (saved === undefined) {
        if (state === "saving") continue;
        this.#forget(key);
        if (state !== "saved") this.onGone(place.image, text);
      } else if (state === "saved") draft.value = { text: saved, saved, state };
      else if (state !== "saving") draft.value = { ...draft.value, saved };
    }
    this.#count();
  }

  edit(draft: Signal<CaptionDraft>, text: string): void {
    const { saved, state } = draft.value;
    draft.value = { text, saved, state: state === "saving" ? state : text === saved ? "saved" : "edited" };
    this.#count();
  }

  /** Back to what the file holds. */
  revert(draft: Signal<CaptionDraft>): void {
    this.edit(draft, draft.value.saved);
  }

  /** Saves what is typed. @returns Whether the file holds it. */
  async commit(dataSet: string, image: string, draft: Signal<CaptionDraft>): Promise<boolean> {
    // While one is being saved, its end saves what was typed since.
    while (draft.value.text !== draft.value.saved && draft.value.state !== "saving") {
      const { text, saved } = draft.value;
      draft.value = { text, saved, state: "saving" };
      try {
        await this.save(dataSet, image, text);
        const now = draft.value.text;
        draft.value = { text: now, saved: text, state: now === text ? "saved" : "edited" };
      } catch (error) {
        draft.value = { ...draft.value, state: "failed", error: (error as Error).message };
        this.#count();
        return false;
      }
    }
    this.#count();
    return draft.value.state === "saved";
  }

  /** Tries again what failed. */
  async commitAll(): Promise<void> {
    for (const [key, draft] of this.#drafts) {
      if (draft.value.state !== "failed") continue;
      const { dataSet, image } = this.#places.get(key)!;
      await this.commit(dataSet, image, draft);
    }
  }

  #forget(key: string): void {
    this.#drafts.delete(key);
    this.#places.delete(key);
  }

  #count(): void {
    const states = [...this.#drafts.values()].map(({ value }) => value.state);
    this.unsaved.value = states.filter((state) => state !== "saved").length;
    this.failed.value = states.filter((state) => state === "failed").length;
  }
}
