// Loops over float32 arrays as WebAssembly with SIMD: four elements at a time, every operation rounded to float32, in a third
// of the time of the same loop in JavaScript. Where the platform has no SIMD there is no kernel, and callers have that loop.

/** Elements in WebAssembly's own memory at a time: with a few arrays, as much as a processor's second cache holds. */
const RANGE = 8192;
const RANGE_BYTES = 4 * RANGE;
const PAGE_BYTES = 65_536;

/** Instructions that leave four float32 numbers on the stack. */
export type Quad = readonly number[];

const SIMD = 0xfd;
const simd = (code: number): number[] => [SIMD, ...unsigned(code)];
const binary =
  (code: number) =>
  (a: Quad, b: Quad): Quad => [...a, ...b, ...simd(code)];

/** Arithmetic element by element. */
export const quads = {
  add: binary(0xe4),
  sub: binary(0xe5),
  mul: binary(0xe6),
  div: binary(0xe7),
  sqrt: (a: Quad): Quad => [...a, ...simd(0xe3)],
};

/** What a kernel's body is written with. */
export interface KernelBody<Name extends string, Scalar extends string> {
  /** An array's elements. */
  load(array: Name): Quad;
  scalar(name: Scalar): Quad;
  /** Keeps a value that is used more than once. @returns What gives it. */
  keep(value: Quad): Quad;
  /** Writes; what was loaded before keeps its value only where it was kept. */
  store(array: Name, value: Quad): void;
}

/** A loop over arrays of one length. */
export type Kernel<Name extends string, Scalar extends string> = (
  arrays: Readonly<Record<Name, Float32Array>>,
  scalars: Readonly<Record<Scalar, number>>,
) => void;

/**
 * Compiles a loop.
 *
 * @param names - The arrays, up to eight.
 * @param scalars - Numbers that are the same for all elements.
 * @param body - Says once what is done with every element.
 * @returns Undefined where the platform has no SIMD in WebAssembly.
 */
export function compileKernel<Name extends string, Scalar extends string>(
  names: readonly Name[],
  scalars: readonly Scalar[],
  body: (body: KernelBody<Name, Scalar>) => void,
): Kernel<Name, Scalar> | undefined {
  const stored = new Set<Name>();
  const loaded = new Set<Name>();
  // Parameters: where the arrays end, in bytes from where each begins, and the scalars; then locals: the position, the scalars
  // four times each, and what is kept.
  const [end, firstScalar, position] = [0, 1, 1 + scalars.length];
  const firstQuad = position + 1;
  let locals = scalars.length;
  const code: number[] = [];
  const address = (name: Name) => unsigned(names.indexOf(name) * RANGE_BYTES);
  body({
    load: (name) => {
      loaded.add(name);
      return [0x20, position, ...simd(0x00), 4, ...address(name)];
    },
    scalar: (name) => [0x20, firstQuad + scalars.indexOf(name)],
    keep: (value) => {
      const local = firstQuad + locals++;
      code.push(...value, 0x21, local);
      return [0x20, local];
    },
    store: (name, value) => {
      stored.add(name);
      code.push(0x20, position, ...value, ...simd(0x0b), 4, ...address(name));
    },
  });
  const splats = scalars.flatMap((_, i) => [0x20, firstScalar + i, 0xb6, ...simd(0x13), 0x21, firstQuad + i]);
  const next = [0x20, position, 0x41, 16, 0x6a, 0x22, position, 0x20, end, 0x49, 0x0d, 0];
  const loop = [0x03, 0x40, ...code, ...next, 0x0b];
  const declared = [2, 1, 0x7f, ...unsigned(locals), 0x7b];
  const pages = Math.ceil((names.length * RANGE_BYTES) / PAGE_BYTES);
  const bytes = moduleBytes([0x7f, ...scalars.map(() => 0x7c)], [...declared, ...splats, ...loop, 0x0b], pages);
  if (typeof WebAssembly === "undefined" || !WebAssembly.validate(bytes)) return undefined;
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes));
  const run = exports.run as (...values: number[]) => void;
  const { buffer } = exports.memory as WebAssembly.Memory;
  const windows = names.map((name, i) => ({ name, memory: new Float32Array(buffer, i * RANGE_BYTES, RANGE) }));
  const inputs = windows.filter(({ name }) => loaded.has(name));
  const outputs = windows.filter(({ name }) => stored.has(name));
  return (arrays, values) => {
    const { length } = arrays[names[0]!];
    const given = scalars.map((name) => values[name]);
    for (let start = 0; start < length; start += RANGE) {
      const size = Math.min(RANGE, length - start);
      for (const { name, memory } of inputs) memory.set(arrays[name].subarray(start, start + size));
      run(4 * size, ...given);
      for (const { name, memory } of outputs) {
        arrays[name].set(size === RANGE ? memory : memory.subarray(0, size), start);
      }
    }
  };
}

/** A kernel that is compiled when it is first asked for. */
export function onceCompiled<T>(compile: () => T): () => T {
  let compiled: { kernel: T } | undefined;
  return () => {
    compiled ??= { kernel: compile() };
    return compiled.kernel;
  };
}

/** A module with one function, `run`, and a memory. */
function moduleBytes(parameters: readonly number[], code: readonly number[], pages: number): Uint8Array<ArrayBuffer> {
  const section = (id: number, content: readonly number[]) => [id, ...unsigned(content.length), ...content];
  const name = (text: string) => [text.length, ...new TextEncoder().encode(text)];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, ...unsigned(parameters.length), ...parameters, 0]),
    ...section(3, [1, 0]),
    ...section(5, [1, 0, ...unsigned(pages)]),
    ...section(7, [2, ...name("run"), 0, 0, ...name("memory"), 2, 0]),
    ...section(10, [1, ...unsigned(code.length), ...code]),
  ]);
}

/** LEB128. */
function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  do {
    bytes.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
    rest >>>= 7;
  } while (rest > 0);
  return bytes;
}
