import { readFile } from "node:fs/promises";
import { type Zippable, zipSync } from "fflate";
import { describe, expect, it } from "vitest";
import { FormatError } from "../errors.js";
import { Tensor, tensor } from "../tensor/tensor.js";
import { readSafetensors, readTorch } from "./tensor-file.js";
import { decodeTorch, encodeTorch } from "./torch.js";

type Bytes = string | number | Uint8Array | Bytes[];

/** Joins byte values, ASCII texts and arrays. */
function join(...parts: Bytes[]): Uint8Array {
  return Uint8Array.from(
    parts.flatMap((part): number[] => {
      if (typeof part === "number") return [part];
      if (typeof part === "string") return [...new TextEncoder().encode(part)];
      return Array.isArray(part) ? [...join(...part)] : [...part];
    }),
  );
}

const floats = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);
const text = (value: string) => ["X", value.length, 0, 0, 0, value];
const int = (value: number) => ["J", new Uint8Array(Int32Array.of(value).buffer)];
const tuple = (...items: Bytes[]) => ["(", ...items, "t"];
const storage = (numel: number, type = "FloatStorage", key = "0") => [
  tuple(text("storage"), `ctorch\n${type}\n`, text(key), text("cpu"), int(numel)),
  "Q",
];
const rebuilt = (numel: number, offset: number, size: number[], stride: number[], type?: string) => [
  "ctorch._utils\n_rebuild_tensor_v2\n",
  tuple(storage(numel, type), int(offset), tuple(...size.map(int)), tuple(...stride.map(int)), 0x89, "N"),
  "R",
];
const dict = (...value: Bytes[]) => [0x80, 2, "}", text("w"), ...value, "s."];

/** Runs decodeTorch on a hand-made archive. */
function decode(pickle: Bytes, data: Uint8Array = floats(1, 2, 3, 4, 5, 6), more: Zippable = {}) {
  const files = { "x/data.pkl": join(pickle), "x/data/0": data, "x/version": join("3\n"), ...more };
  return decodeTorch(zipSync(files, { level: 0 }), "x.pt");
}

describe("decodeTorch", () => {
  it.each(["sd15", "sd21", "sdxl"])("reads the file that torch saved for %s exactly", async (name) => {
    const folder = `test/reference/unet-${name}`;
    const expected = await readSafetensors(`${folder}/adapters_trained.safetensors`);
    const actual = await readTorch(`${folder}/fera_output.pt`);
    expect([...actual.keys()].sort()).toEqual([...expected.tensors.keys()].sort());
    for (const [key, value] of actual) expect(value).toEqual(expected.tensors.get(key));
  });

  it("makes strided tensors contiguous", () => {
    expect(decode(dict(rebuilt(6, 0, [3, 2], [1, 3]))).get("w")).toEqual(tensor([1, 4, 2, 5, 3, 6], [3, 2]));
    expect(decode(dict(rebuilt(6, 1, [2, 2], [3, 1]))).get("w")).toEqual(tensor([2, 3, 5, 6], [2, 2]));
    expect(decode(dict(rebuilt(6, 2, [], []))).get("w")).toEqual(tensor([3], []));
    expect(decode(dict(rebuilt(6, 6, [0, 3], [9, 9]))).get("w")).toEqual(tensor([], [0, 3]));
    expect(decode(dict(rebuilt(6, 0, [1, 6], [77, 1]))).get("w")).toEqual(tensor([1, 2, 3, 4, 5, 6], [1, 6]));
  });

  it("decodes BFloat16 and Double storages to float32", () => {
    const bf16 = decode(dict(rebuilt(2, 0, [2], [1], "BFloat16Storage")), Uint8Array.of(0x80, 0x3f, 0x20, 0xc0));
    expect(bf16.get("w")).toEqual(tensor([1, -2.5]));
    const f64 = decode(dict(rebuilt(1, 0, [1], [1], "DoubleStorage")), Uint8Array.of(0, 0, 0, 0, 0, 0, 0xf8, 0x3f));
    expect(f64.get("w")).toEqual(tensor([1.5]));
  });

  it("takes an OrderedDict with attributes, as nn.Module.state_dict gives", () => {
    const ordered = ["ccollections\nOrderedDict\n", ")R"];
    const pickle = [0x80, 2, ordered, "(", text("w"), rebuilt(6, 0, [6], [1]), "u"];
    expect(decode([pickle, "}", text("_metadata"), ordered, "s", "b."]).size).toBe(1);
  });
});

describe("encodeTorch", () => {
  const tensors = new Map<string, Tensor>([
    ["router.weight", tensor([1.5, Number.NaN, -0, 4, 5, 6], [2, 3])],
    ["half", new Tensor("float16", [1], Uint16Array.of(0x3c00))],
    ["long", new Tensor("int64", [2], BigInt64Array.of(-1n, 2n ** 60n))],
    ["int", tensor([-5], [1, 1], "int32")],
    ["flag", tensor([0, 1], [2], "bool")],
    ["scalar ü", tensor([3], [])],
    ["empty", tensor([], [0, 70_000])],
  ]);

  it("round-trips every dtype in order, and gives the same bytes again", () => {
    const bytes = encodeTorch(tensors);
    const read = decodeTorch(bytes);
    expect([...read]).toEqual([...tensors]);
    expect(encodeTorch(read)).toEqual(bytes);
  });

  it("aligns every record to 64 bytes", () => {
    const bytes = encodeTorch(tensors);
    const view = new DataView(bytes.buffer);
    let records = 0;
    for (let at = 0; view.getUint32(at, true) === 0x04034b50; records++) {
      const start = at + 30 + view.getUint16(at + 26, true) + view.getUint16(at + 28, true);
      expect(start % 64).toBe(0);
      at = start + view.getUint32(at + 18, true);
    }
    expect(records).toBe(tensors.size + 3);
  });

  it("rejects values that are not tensors and more records than a zip can number", () => {
    expect(() => encodeTorch({ a: [1] as unknown as Tensor })).toThrow(/"a" is not a Tensor/);
    const one = tensor([1]);
    expect(() => encodeTorch(new Map(Array.from({ length: 65_533 }, (_, i) => [`t${i}`, one])))).toThrow(/safetensors/);
  });
});

describe("hostile torch bytes", () => {
  const good = dict(rebuilt(6, 0, [6], [1]));
  const call = (module: string, name: string) => [0x80, 2, `c${module}\n${name}\n`, tuple(text("true")), "R."];
  const flipped = (offset: number, value: number) => {
    const bytes = encodeTorch({ a: tensor([1]) });
    bytes[bytes.length + offset] = value;
    return () => decodeTorch(bytes);
  };
  const cases: [string, () => unknown, RegExp][] = [
    ["os.system", () => decode(call("os", "system")), /"os\.system".*refused/],
    ["builtins.eval", () => decode(call("builtins", "eval")), /"builtins\.eval"/],
    ["posix.system under a long module name", () => decode(call("a".repeat(500), "b")), /"a{200}"/],
    [
      "torch storages beyond those known",
      () => decode(dict(rebuilt(6, 0, [6], [1], "CharStorage"))),
      /"torch\.CharStorage"/,
    ],
    ["constructor as a global", () => decode(call("constructor", "__proto__")), /refused/],
    ["a call of a storage type", () => decode([0x80, 2, "ctorch\nFloatStorage\n)R."]), /calls torch\.FloatStorage/],
    ["a call of a string", () => decode([0x80, 2, text("f"), ")R."]), /calls something/],
    [
      "opcodes that build objects",
      () => decode([0x80, 2, "ccollections\nOrderedDict\n", ")", 0x81, "."]),
      /opcode 0x81 at byte/,
    ],
    ["extension codes", () => decode([0x80, 2, 0x82, 1, "."]), /opcode 0x82/],
    ["protocol 4", () => decode([0x80, 4, "N."]), /protocol 4/],
    ["a pop from an empty stack", () => decode([0x80, 2, "."]), /empty stack/],
    ["a tuple from an empty stack", () => decode([0x80, 2, 0x87, "."]), /empty stack/],
    ["items below a mark", () => decode([0x80, 2, "}N(s."]), /empty stack/],
    ["a group never opened", () => decode([0x80, 2, "t."]), /never opened/],
    ["values left over", () => decode([0x80, 2, "NN."]), /left over/],
    ["a memo entry never stored", () => decode([0x80, 2, "h", 9, "."]), /value 9/],
    ["a key without value", () => decode([0x80, 2, "}(Nu."]), /no value/],
    ["items set on a tuple", () => decode([0x80, 2, ")NNs."]), /not a dict/],
    ["attributes set on a tuple", () => decode([0x80, 2, ")}b."]), /not a dict/],
    ["an append to a dict", () => decode([0x80, 2, "}Na."]), /not a list/],
    ["a pickle that does not end", () => decode([0x80, 2, "N"]), /truncated/],
    ["a truncated string", () => decode([0x80, 2, "X", 255, 255, 255, 255, "a"]), /truncated/],
    ["a truncated global", () => decode([0x80, 2, "ctorch"]), /truncated/],
    ["an empty pickle", () => decode([]), /truncated/],
    ["a string that is not UTF-8", () => decode([0x80, 2, "X", 1, 0, 0, 0, 0xff, "."]), /UTF-8/],
    ["an integer beyond 2^53", () => decode([0x80, 2, 0x8a, 8, new Uint8Array(8).fill(0x7f), "."]), /beyond 2\^53/],
    ["deep nesting", () => decode([0x80, 2, ")", new Uint8Array(2e5).fill(0x85), "."]), /it holds a tuple/],
    ["open groups without end", () => decode([0x80, 2, new Uint8Array(2e5).fill(0x28), "."]), /empty stack/],
    ["no dict", () => decode([0x80, 2, rebuilt(6, 0, [6], [1]), "."]), /it holds a tensor/],
    ["a storage as a value", () => decode(dict(storage(6))), /"w" is a storage/],
    ["a nested checkpoint", () => decode(dict("}")), /"w" is a dict.*save its state dict alone/],
    ["a key that is no name", () => decode([0x80, 2, "}K", 1, "Ns."]), /keys of a state dict/],
    ["the key __proto__", () => decode([0x80, 2, "}", text("__proto__"), "Ns."]), /keys of a state dict/],
    ["a persistent id that is no storage", () => decode([0x80, 2, text("x"), "Q."]), /form that is not known/],
    [
      "a storage type that is a function",
      () =>
        decode([0x80, 2, tuple(text("storage"), "ccollections\nOrderedDict\n", text("0"), text("cpu"), int(6)), "Q."]),
      /not a storage/,
    ],
    ["a missing storage", () => decode([0x80, 2, storage(1, "FloatStorage", "7"), "."]), /"7" is missing/],
    ["a storage of another length", () => decode(dict(rebuilt(7, 0, [6], [1]))), /should have 7 elements/],
    ["a storage with a negative length", () => decode(dict(rebuilt(-6, 0, [6], [1]))), /form that is not known/],
    [
      "one storage with two dtypes",
      () =>
        decode([
          0x80,
          2,
          "}(",
          text("a"),
          rebuilt(6, 0, [6], [1]),
          text("b"),
          rebuilt(6, 0, [6], [1], "IntStorage"),
          "u.",
        ]),
      /two dtypes/,
    ],
    ["a size out of the storage", () => decode(dict(rebuilt(6, 0, [7], [1]))), /does not fit/],
    ["an offset out of the storage", () => decode(dict(rebuilt(6, 1, [6], [1]))), /does not fit/],
    ["an offset out of the storage for an empty tensor", () => decode(dict(rebuilt(6, 8, [0], [1]))), /does not fit/],
    ["a stride out of the storage", () => decode(dict(rebuilt(6, 0, [3, 2], [3, 1]))), /does not fit/],
    ["an expanded tensor", () => decode(dict(rebuilt(6, 0, [2 ** 30, 2 ** 30], [0, 0]))), /contiguous\(\)/],
    ["a negative size", () => decode(dict(rebuilt(6, 0, [-1, -6], [1, 1]))), /wrong storage, offset, size/],
    ["a negative stride", () => decode(dict(rebuilt(6, 5, [6], [-1]))), /wrong storage, offset, size/],
    ["a negative offset", () => decode(dict(rebuilt(6, -1, [6], [1]))), /wrong storage, offset, size/],
    ["fewer strides than dimensions", () => decode(dict(rebuilt(6, 0, [6, 1], [1]))), /wrong storage, offset, size/],
    [
      "a tensor of no arguments",
      () => decode(dict(["ctorch._utils\n_rebuild_tensor_v2\n)R"])),
      /wrong storage, offset/,
    ],
    [
      "a parameter of no tensor",
      () => decode(dict(["ctorch._utils\n_rebuild_parameter\n", tuple("N"), "R"])),
      /parameter/,
    ],
    [
      "a dict built from arguments",
      () => decode(dict(["ccollections\nOrderedDict\n", tuple("]"), "R"])),
      /builds a dict/,
    ],
    [
      "a Bool byte that is neither 0 nor 1",
      () => decode(dict(rebuilt(6, 0, [6], [1], "BoolStorage")), new Uint8Array(6).fill(2)),
      /0 or 1/,
    ],
    [
      "copies that would fill the memory",
      () =>
        decode(
          [
            0x80,
            2,
            "}(",
            ...Array.from({ length: 400 }, (_, i) => [
              text(`w${i}`),
              rebuilt(6e4, 0, [6e4], [1], "BFloat16Storage"),
            ]).flat(),
            "u.",
          ],
          new Uint8Array(12e4),
        ),
      /fill the memory/,
    ],
    ["a compressed record", () => decodeTorch(zipSync({ "x/data.pkl": join(good) }, { level: 9 })), /compressed/],
    ["two pickles", () => decode(good, undefined, { "y/data.pkl": join(good) }), /found 2/],
    ["no pickle", () => decodeTorch(zipSync({ "x/data/0": floats(1) }, { level: 0 })), /found 0/],
    ["an empty zip", () => decodeTorch(zipSync({})), /found 0/],
    ["another byte order", () => decode(good, undefined, { "x/byteorder": join("big") }), /big-endian/],
    ["no zip", () => decodeTorch(new Uint8Array(100)), /not a complete zip/],
    ["no bytes", () => decodeTorch(new Uint8Array(0)), /not a complete zip/],
    ["a web page", () => decodeTorch(join("<html></html>")), /it is a web page/],
    ["a safetensors file", () => decodeTorch(join(2, 0, 0, 0, 0, 0, 0, 0, "{}")), /it is a safetensors file; name it/],
    ["the format before PyTorch 1.6", () => decodeTorch(Uint8Array.of(0x80, 2, 0x8a, 10)), /before 1\.6/],
    ["a directory with more records than there are", flipped(-14, 200), /FormatError|twice|zip|compressed|overlaps/],
    ["a directory beyond the file", flipped(-3, 0xff), /./],
  ];
  it.each(cases)("rejects %s", (_, run, message) => {
    expect(run).toThrow(FormatError);
    expect(run).toThrow(message);
  });

  it("rejects a file cut anywhere, and fails only with FormatError whatever byte is changed", () => {
    const whole = encodeTorch({ a: tensor([1, 2, 3], [3]), b: tensor([1], [], "int64") });
    for (let length = 0; length < whole.length; length += 5) {
      expect(() => decodeTorch(whole.slice(0, length))).toThrow(FormatError);
    }
    for (let at = 0; at < whole.length; at++) {
      for (const value of [0x28, 0xff]) {
        const changed = whole.slice();
        changed[at] = value;
        try {
          decodeTorch(changed);
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
        }
      }
    }
  });

  it("names the file in its errors", async () => {
    await expect(readTorch("test/reference/README.md")).rejects.toThrow(
      /^test\/reference\/README\.md: is not a complete zip/,
    );
    const cut = (await readFile("test/reference/unet-sd15/fera_output.pt")).subarray(0, 90_000);
    await expect(readTorch(cut)).rejects.toThrow(FormatError);
  });
});
