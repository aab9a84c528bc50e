import { describe, expect, it } from "vitest";
import { FormatError } from "../errors.js";
import { Tensor, tensor } from "../tensor/tensor.js";
import { decodeSafetensors, encodeSafetensors, parseSafetensorsHeader } from "./safetensors.js";

function file(header: unknown, data: ArrayLike<number> = []): Uint8Array {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  bytes.set(data, 8 + json.length);
  return bytes;
}

function entry(dtype: string, shape: unknown, begin: unknown, end: unknown) {
  return { dtype, shape, data_offsets: [begin, end] };
}

const decode = (header: unknown, data?: ArrayLike<number>) => () =>
  decodeSafetensors(file(header, data), "x.safetensors");

describe("safetensors bytes", () => {
  it("round-trips every dtype, empty tensors, scalars and metadata", () => {
    const tensors = new Map<string, Tensor>([
      ["b.weight", tensor([1.5, -2, Number.NaN], [3, 1])],
      ["a", tensor([1, 0, 1], [3], "bool")],
      ["half", new Tensor("float16", [2], Uint16Array.of(0x3c00, 0xffff))],
      ["long", new Tensor("int64", [1, 2], BigInt64Array.of(-(2n ** 63n), 2n ** 63n - 1n))],
      ["int", tensor([-1, 7], [2], "int32")],
      ["scalar", tensor([3], [])],
      ["empty", tensor([], [0, 4])],
      ['naïve ✓ " \\ name', tensor([9], [1])],
    ]);
    const bytes = encodeSafetensors(tensors, { note: 'ü " {', format: "pt" });
    const read = decodeSafetensors(bytes);
    expect(read.metadata).toEqual({ note: 'ü " {', format: "pt" });
    expect(read.tensors.size).toBe(tensors.size);
    for (const [name, value] of tensors) expect(read.tensors.get(name)).toEqual(value);
  });

  it("keeps long metadata full of escapes", () => {
    const note = '{"\\n": ["\t"]}'.repeat(2e5);
    expect(decodeSafetensors(encodeSafetensors({}, { note })).metadata).toEqual({ note });
  });

  it("pads the header to 8 bytes and aligns every tensor", () => {
    const bytes = encodeSafetensors({ a: tensor([1], [1], "bool"), z: tensor([1], [1], "int64"), m: tensor([2]) });
    const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    expect(length % 8).toBe(0);
    const header = parseSafetensorsHeader(bytes.subarray(8, 8 + length), "x", bytes.length - 8 - length);
    expect([...header.entries.keys()]).toEqual(["z", "m", "a"]);
    expect([...header.entries.values()].map((each) => each.offset)).toEqual([0, 8, 12]);
  });

  it("writes the same bytes whatever the order of the names", () => {
    const a = tensor([1]);
    const b = tensor([2]);
    expect(encodeSafetensors({ b, a })).toEqual(encodeSafetensors({ a, b }));
  });

  it("decodes BF16 and F64 to float32", () => {
    const { tensors } = decode(
      { h: entry("BF16", [2], 0, 4), d: entry("F64", [1], 4, 12) },
      [0x80, 0x3f, 0x20, 0xc0, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f],
    )();
    expect(tensors.get("h")).toEqual(tensor([1, -2.5]));
    expect(tensors.get("d")).toEqual(tensor([1.5]));
  });

  it("decodes tensors at unaligned offsets", () => {
    const header = `${JSON.stringify({ b: entry("BOOL", [1], 0, 1), f: entry("F32", [1], 1, 5) })}  `;
    for (const pad of ["", " ", "  ", "   "]) {
      expect(decode(header + pad, [1, 0, 0, 0x80, 0x3f])().tensors.get("f")).toEqual(tensor([1]));
    }
  });

  it.each(["I8", "U8", "I16", "F8_E8M0"])("refuses dtype %s by name", (dtype) => {
    const width = dtype === "I16" ? 2 : 1;
    expect(decode({ w: entry(dtype, [1], 0, width) }, new Uint8Array(width))).toThrow(`"w" has dtype ${dtype}`);
  });

  it("refuses names that are reserved when encoding", () => {
    expect(() => encodeSafetensors(new Map([["__metadata__", tensor([1])]]))).toThrow(FormatError);
    expect(() => encodeSafetensors(new Map([["__proto__", tensor([1])]]))).toThrow(FormatError);
  });

  it("refuses metadata that is not strings when encoding", () => {
    expect(() => encodeSafetensors({}, { rank: 4 as unknown as string })).toThrow(/"rank" is number/);
  });
});

describe("hostile safetensors bytes", () => {
  const four = [0, 0, 0, 0];
  const cases: [string, () => unknown, RegExp][] = [
    ["an empty file", () => decodeSafetensors(new Uint8Array(0)), /at least 8 bytes/],
    [
      "a header longer than the file",
      () => decodeSafetensors(file({}).fill(9, 0, 1)),
      /header should be 9 bytes.*truncated/,
    ],
    ["a header over 100 MB", () => decodeSafetensors(new Uint8Array(8).fill(0x20)), /at most 100000000 bytes/],
    ["a header that is no object", decode("[1]"), /begin with "\{"/],
    ["an empty header", decode(""), /begin with/],
    ["invalid JSON", decode('{"a":'), /not valid JSON/],
    [
      "invalid UTF-8",
      () => decodeSafetensors(Uint8Array.of(3, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0xff, 0x7d)),
      /not valid JSON/,
    ],
    ["the name __proto__", decode(`{"__proto__":${JSON.stringify(entry("F32", [1], 0, 4))}}`, four), /__proto__/],
    ["__proto__ in the metadata", decode('{"__metadata__":{"__proto__":"x"}}'), /__proto__/],
    ["metadata that is no object", decode({ __metadata__: ["x"] }), /__metadata__ must be an object/],
    ["metadata that is not strings", decode({ __metadata__: { a: { b: 1 } } }), /strings only/],
    [
      "a duplicate name",
      decode(
        '{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"\\u0061":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}',
      ),
      /"a" twice/,
    ],
    [
      "a duplicate key in an entry",
      decode('{"a":{"dtype":"F32","dtype":"F32","shape":[0],"data_offsets":[0,0]}}'),
      /"dtype" twice/,
    ],
    ["an entry that is null", decode({ a: null }), /"a": a tensor's entry/],
    ["an unknown dtype", decode({ a: entry("toString", [1], 0, 4) }, four), /unknown dtype "toString"/],
    ["offsets outside the file", decode({ a: entry("F32", [2], 0, 8) }, four), /has only 4/],
    [
      "overlapping tensors",
      decode({ a: entry("F32", [1], 0, 4), b: entry("F32", [1], 2, 6) }, [...four, 0, 0]),
      /inside the tensor before/,
    ],
    [
      "two tensors on the same bytes",
      decode({ a: entry("F32", [1], 0, 4), b: entry("F32", [1], 0, 4) }, four),
      /inside the tensor before/,
    ],
    [
      "a hole between tensors",
      decode({ a: entry("BOOL", [1], 0, 1), b: entry("BOOL", [1], 2, 3) }, [0, 0, 0]),
      /belong to no tensor/,
    ],
    ["a hole before the first tensor", decode({ a: entry("BOOL", [1], 1, 2) }, [0, 0]), /belong to no tensor/],
    ["bytes after the last tensor", decode({ a: entry("BOOL", [1], 0, 1) }, [0, 0]), /1 bytes after the last/],
    ["a length that does not match the shape", decode({ a: entry("F32", [2], 0, 4) }, four), /takes 8 bytes.*span 4/],
    ["a shape whose size overflows", decode({ a: entry("F32", [2 ** 40, 2 ** 40], 0, 4) }, four), /span 4/],
    ["a negative dimension", decode({ a: entry("F32", [-1, -1], 0, 4) }, four), /non-negative integers/],
    ["a fractional dimension", decode({ a: entry("F32", [0.5, 2], 0, 4) }, four), /non-negative integers/],
    ["a shape that is no list", decode({ a: entry("F32", "1", 0, 4) }, four), /non-negative integers/],
    ["a negative offset", decode({ a: entry("F32", [1], -4, 0) }, four), /data_offsets must be/],
    ["a fractional offset", decode({ a: entry("F32", [1], 0.5, 4.5) }, four), /data_offsets must be/],
    ["offsets backwards", decode({ a: entry("F32", [1], 4, 0) }, four), /data_offsets must be/],
    ["offsets as strings", decode({ a: entry("F32", [1], "0", "4") }, four), /data_offsets must be/],
    [
      "an offset beyond safe integers",
      decode(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,1e300]}}`, four),
      /data_offsets must be/,
    ],
    ["missing offsets", decode({ a: { dtype: "F32", shape: [1] } }, four), /data_offsets must be/],
    ["a BOOL byte that is neither 0 nor 1", decode({ a: entry("BOOL", [2], 0, 2) }, [1, 2]), /element 1 is 2/],
    ["deep nesting", decode(`{"a":${"[".repeat(1e5)}${"]".repeat(1e5)}}`), /./],
  ];
  it.each(cases)("rejects %s", (_, run, message) => {
    expect(run).toThrow(FormatError);
    expect(run).toThrow(message);
  });
});
