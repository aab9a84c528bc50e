import { deflateSync } from "node:zlib";
import sharp from "sharp";
import { beforeAll, describe, expect, it } from "vitest";
import { FormatError } from "../errors.js";
import { readPngTexts, withPngTexts } from "./png-text.js";

let png: Uint8Array;
beforeAll(async () => {
  const create = { width: 3, height: 2, channels: 3, background: "teal" } as const;
  png = new Uint8Array(await sharp({ create }).png().toBuffer());
});

/** The file with one more chunk behind its first, its checksum computed by another implementation. */
function withChunk(type: string, data: Uint8Array): Uint8Array {
  const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
  const frame = Buffer.alloc(8);
  frame.writeUInt32BE(data.length, 0);
  frame.writeUInt32BE(referenceCrc(body), 4);
  return Buffer.concat([png.subarray(0, 33), frame.subarray(0, 4), body, frame.subarray(4), png.subarray(33)]);
}

/** Bit by bit, as the specification defines it. */
function referenceCrc(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1));
  }
  return ~crc >>> 0;
}

const bytesOf = (text: string, encoding: BufferEncoding = "latin1") => Buffer.from(text, encoding);

describe("withPngTexts", () => {
  it("keeps the pixels, and gives back any text", async () => {
    const texts = ["", "plain", "Ärger, naïve", 'eine\nzweite: "Zeile"', "猫 🐈‍⬛ – €", "a".repeat(100_000)].map(
      (text, i) => ({
        keyword: `text ${i}`,
        text,
      }),
    );
    const written = withPngTexts(png, texts);
    expect(readPngTexts(written)).toEqual(texts);
    expect(await sharp(written).raw().toBuffer()).toEqual(await sharp(png).raw().toBuffer());
  });

  it("writes what Latin-1 holds as tEXt, the rest as iTXt", () => {
    const written = Buffer.from(
      withPngTexts(png, [
        { keyword: "a", text: "é" },
        { keyword: "b", text: "œ" },
      ]),
    );
    expect(written.includes(bytesOf("tEXta\0é"))).toBe(true);
    expect(written.includes(Buffer.concat([bytesOf("iTXtb\0\0\0\0\0"), bytesOf("œ", "utf8")]))).toBe(true);
  });

  it("replaces a text of the same keyword, and leaves others", () => {
    const first = withPngTexts(png, [
      { keyword: "a", text: "1" },
      { keyword: "b", text: "2" },
    ]);
    expect(readPngTexts(withPngTexts(first, [{ keyword: "a", text: "3" }]))).toEqual([
      { keyword: "a", text: "3" },
      { keyword: "b", text: "2" },
    ]);
  });

  it.each(["", " a", "a ", "a  b", "ü\n", "€", "a".repeat(80)])("refuses the keyword %j", (keyword) => {
    expect(() => withPngTexts(png, [{ keyword, text: "" }])).toThrow(/keyword must be 1 to 79 Latin-1 characters/);
  });

  it("refuses a zero character", () => {
    expect(() => withPngTexts(png, [{ keyword: "a", text: "\0" }], "x.png")).toThrow(
      'x.png: the text "a" must not hold a zero character.',
    );
  });
});

describe("readPngTexts", () => {
  it("reads compressed texts", () => {
    const packed = deflateSync(bytesOf("Grüße"));
    expect(readPngTexts(withChunk("zTXt", Buffer.concat([bytesOf("a\0\0"), packed])))).toEqual([
      { keyword: "a", text: "Grüße" },
    ]);
    const utf8 = deflateSync(bytesOf("猫", "utf8"));
    const head = bytesOf("b\0\u0001\0ja\0キー\0", "utf8");
    expect(readPngTexts(withChunk("iTXt", Buffer.concat([head, utf8])))).toEqual([{ keyword: "b", text: "猫" }]);
  });

  const bomb = () => Buffer.concat([bytesOf("a\0\0"), deflateSync(new Uint8Array(2 ** 26))]);
  it.each<[string, () => Uint8Array, RegExp]>([
    ["what is no PNG file", () => bytesOf("GIF89a, and more"), /is no PNG file/],
    ["nothing", () => new Uint8Array(), /is no PNG file/],
    ["a file that is cut off", () => png.subarray(0, png.length - 14), /is cut off/],
    ["a chunk longer than the file", () => Buffer.from(png).fill(0x7f, 33, 34), /is cut off: its chunk/],
    ["a changed byte", () => Buffer.from(png).fill(9, 18, 19), /checksum of its chunk IHDR at byte 8 is wrong/],
    ["a text without its end", () => withChunk("tEXt", bytesOf("keyword")), /a chunk tEXt is malformed/],
    ["an unknown compression", () => withChunk("zTXt", bytesOf("a\0\u0001xxxx")), /a chunk zTXt is malformed/],
    ["a damaged compression", () => withChunk("zTXt", bytesOf("a\0\0xxxx")), /compressed text cannot be read/],
    ["text that is no UTF-8", () => withChunk("iTXt", bytesOf("a\0\0\0\0\0\xff")), /no valid UTF-8/],
    ["text that inflates to 64 MiB", () => withChunk("zTXt", bomb()), /holds more than 16 MiB of text/],
    [
      "a text of more than 16 MiB",
      () => withChunk("tEXt", Buffer.alloc(2 ** 24 + 9, "a\0")),
      /holds more than 16 MiB of text/,
    ],
  ])("refuses %s", (_, file, message) => {
    const read = () => readPngTexts(file(), "odd.png");
    expect(read).toThrow(FormatError);
    expect(read).toThrow(message);
    expect(read).toThrow(/^odd\.png: /);
  });
});
