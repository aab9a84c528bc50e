import { expect, it } from "vitest";
import { int8Range } from "./int8-range.js";

it("integers reach as far as the processor adds their products without cutting them off", () => {
  expect(int8Range("flags : avx2 avx512f avx512_vnni amx_int8", "x64")).toBe(127);
  expect(int8Range("flags : avx2 avx_vnni", "x64")).toBe(127);
  expect(int8Range("flags : avx2 avx512f", "x64")).toBe(63);
  expect(int8Range("", "x64")).toBe(63);
  expect(int8Range("", "arm64")).toBe(127);
});
