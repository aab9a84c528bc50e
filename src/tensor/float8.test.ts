import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { float8ToFloat32 } from "./float8.js";

const golden = JSON.parse(readFileSync("test/reference/float8.json", "utf8"));

it.each(["F8_E4M3", "F8_E5M2"] as const)("every byte of %s is torch's value", (type) => {
  const wanted = (golden[type] as (number | string | null)[]).map((value) =>
    typeof value === "string" ? Number(value.replace("inf", "Infinity")) : (value ?? Number.NaN),
  );
  const found = float8ToFloat32(
    Uint8Array.from({ length: 256 }, (_, byte) => byte),
    type,
  );
  expect([...found]).toEqual(wanted);
});
