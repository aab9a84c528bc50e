import { describe, expect, it } from "vitest";
import { ConfigError, FormatError, printable, quoted, shortened } from "./errors.js";

const ESCAPE = "\u001b";
const C1_CONTROL = "\u009b";
const RIGHT_TO_LEFT = "\u202e";

describe("printable", () => {
  it("escapes what a terminal acts on, and leaves words, joiners and emoji", () => {
    expect(printable(`a${ESCAPE}[2Jb\u0007\0\r\n`)).toBe("a\\u{1b}[2Jb\\u{7}\\u{0}\\u{d}\\u{a}");
    expect(printable(`${C1_CONTROL}2J${RIGHT_TO_LEFT}gnp.exe\u2028`)).toBe("\\u{9b}2J\\u{202e}gnp.exe\\u{2028}");
    for (const kept of ["Füße 犬 ملف", "می\u200cخواهم", "👩‍🚀"]) expect(printable(kept)).toBe(kept);
  });
});

describe("quoted", () => {
  it("cuts a long text and says its length, never inside a character", () => {
    expect(quoted("cat")).toBe('"cat"');
    expect(quoted("x".repeat(10_000_000))).toBe(`"${"x".repeat(200)}…" (10000000 characters)`);
    expect(shortened(`${"x".repeat(199)}😀`)).toBe(`${"x".repeat(199)}…`);
    expect(shortened(`${"x".repeat(198)}😀`)).toBe(`${"x".repeat(198)}😀`);
  });

  it("takes any value, and escapes what JSON leaves as it is", () => {
    expect(quoted(`${ESCAPE}]0;owned\u0007${C1_CONTROL}\u007f`)).not.toMatch(/\p{Cc}/u);
    expect(quoted(undefined)).toBe("undefined");
    expect(quoted({ a: [1, null] })).toBe('{"a":[1,null]}');
    expect(quoted(new Array(1000).fill(7))).toHaveLength(201);
  });
});

describe("FeraError", () => {
  it("holds no control character in its message but line breaks, whatever it was made of", () => {
    const error = new FormatError(`a${ESCAPE}c\nfera: done`, `is ${ESCAPE}bad;\n  or worse`);
    expect(error.message).toBe("a\\u{1b}c\\u{a}fera: done: is \\u{1b}bad;\n  or worse");
    expect(error.source).toBe(`a${ESCAPE}c\nfera: done`);
  });

  it("is never a message of megabytes", () => {
    expect(new ConfigError("x".repeat(10_000_000)).message).toHaveLength(16_001);
  });
});
