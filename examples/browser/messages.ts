// What page and worker tell each other.

export interface TrainRequest {
  pictures: ImageBitmap[];
  caption: string;
  prompt: string;
  steps: number;
}

export type Answer =
  | { kind: "status"; text: string }
  | { kind: "drawn"; canvas: "before" | "after"; image: ImageData }
  | { kind: "done"; adapter: Uint8Array<ArrayBuffer> }
  | { kind: "failed"; message: string };
