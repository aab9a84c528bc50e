import { expect, it } from "vitest";
import { memoryBytes, memoryText } from "./memory-plan.js";

it("reads and writes sizes", () => {
  expect(memoryBytes("6GB")).toBe(6e9);
  expect(memoryBytes(" 1.5 gib ")).toBe(1.5 * 2 ** 30);
  expect(memoryBytes("800MB")).toBe(8e8);
  for (const wrong of ["6", "GB", "-1GB", "0GB", "6 TB"]) expect(() => memoryBytes(wrong)).toThrow(/memoryLimit.*6GB/);
  expect([memoryText(123e6), memoryText(5.21e9)]).toEqual(["123 MB", "5.3 GB"]);
});
