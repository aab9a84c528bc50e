import { expect, it } from "vitest";
import { adapterName } from "./adapter-name.js";

it("calls an adapter by its file, and one that a training wrote by its run", () => {
  expect(adapterName("/loras/inks.safetensors")).toBe("inks.safetensors");
  expect(adapterName("/runs/my inks/adapter.safetensors")).toBe("my inks.safetensors");
  expect(adapterName("/runs/my inks/")).toBe("my inks");
});
