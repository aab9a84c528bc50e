import { expect, it } from "vitest";
import { bracketed, isLoopback } from "./access.js";

it("only this machine reaches what listens on its loopback addresses, however they are spelled", () => {
  for (const host of ["127.0.0.1", "localhost", "LocalHost", "::1", "[::1]"]) expect(isLoopback(host), host).toBe(true);
  for (const host of ["0.0.0.0", "::", "192.168.0.7", "localhost.example"]) expect(isLoopback(host), host).toBe(false);
});

it("IPv6 addresses stand in brackets", () => {
  expect(["::1", "[::1]", "127.0.0.1"].map(bracketed)).toEqual(["[::1]", "[::1]", "127.0.0.1"]);
});
