// The form: pictures and texts go to the worker, its answers to the page.

import type { Answer, TrainRequest } from "./messages.js";

const element = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;
const textOf = (id: string): string => element<HTMLInputElement>(id).value;

const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
const button = element<HTMLFormElement>("form").querySelector("button")!;
const status = element<HTMLOutputElement>("status");

element<HTMLFormElement>("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  const files = [...element<HTMLInputElement>("pictures").files!];
  const pictures = await Promise.all(files.map((file) => createImageBitmap(file)));
  const request: TrainRequest = {
    pictures,
    caption: textOf("caption"),
    prompt: textOf("prompt"),
    steps: Number(textOf("steps")),
  };
  worker.postMessage(request, pictures);
});

worker.onmessage = ({ data }: MessageEvent<Answer>) => {
  if (data.kind === "status") status.textContent = data.text;
  if (data.kind === "drawn") {
    const canvas = element<HTMLCanvasElement>(data.canvas);
    canvas.width = data.image.width;
    canvas.height = data.image.height;
    canvas.getContext("2d")!.putImageData(data.image, 0, 0);
  }
  if (data.kind === "failed") status.textContent = `Failed: ${data.message}`;
  if (data.kind === "done") {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([data.adapter], { type: "application/octet-stream" }));
    link.download = link.textContent = "adapter.safetensors";
    element("download").replaceChildren(link);
    status.textContent = "Done.";
  }
  button.disabled = data.kind === "status" || data.kind === "drawn";
};
worker.onerror = ({ message }) => {
  status.textContent = `Failed: ${message}`;
  button.disabled = false;
};
