// Random tensors from the streams of torch's CPU generator: the same seed gives the same numbers as torch 1.13
// (normals to float32 rounding, because torch's vectorised logarithm, sine and cosine differ in the last bit).

import { ConfigError } from "../errors.js";
import { checkShape, Tensor, zeros } from "./tensor.js";

const STATE_WORDS = 624;
const SHIFT = 397;
const SAVED_VERSION = 1;
// version, index, words, whether a normal is cached (four bytes each), the cached normal (eight).
const SAVED_BYTES = 4 * (STATE_WORDS + 3) + 8;
const NORMAL_BLOCK = 16;

/**
 * A stream of random numbers: MT19937, as `torch.Generator("cpu").manual_seed(seed)`.
 *
 * @see Matsumoto & Nishimura 1998, doi:10.1145/272991.272995
 */
export class Generator {
  readonly #words = new Uint32Array(STATE_WORDS);
  #index = STATE_WORDS;
  #cachedNormal: number | undefined;

  /**
   * @param seed - An integer; like torch, only its low 32 bits count.
   * @throws {ConfigError} If a number is not a safe integer.
   */
  constructor(seed: number | bigint) {
    if (typeof seed !== "bigint" && !Number.isSafeInteger(seed)) {
      throw new ConfigError(`Generator: the seed must be an integer; got ${seed}.`);
    }
    const words = this.#words;
    words[0] = Number(BigInt.asUintN(32, BigInt(seed)));
    for (let i = 1; i < STATE_WORDS; i++) {
      const previous = words[i - 1]!;
      words[i] = Math.imul(1812433253, previous ^ (previous >>> 30)) + i;
    }
  }

  /** The next 32 random bits, as an unsigned integer. */
  random32(): number {
    if (this.#index >= STATE_WORDS) this.#twist();
    let bits = this.#words[this.#index++]!;
    bits ^= bits >>> 11;
    bits ^= (bits << 7) & 0x9d2c5680;
    bits ^= (bits << 15) & 0xefc60000;
    return (bits ^ (bits >>> 18)) >>> 0;
  }

  /** The next 64 random bits, the first draw in the high half. */
  random64(): bigint {
    const high = BigInt(this.random32());
    return (high << 32n) | BigInt(this.random32());
  }

  /** Uniform in [0, 1) with the 24 bits of a float32. */
  uniform(): number {
    return (this.random32() & 0xffffff) * 2 ** -24;
  }

  /**
   * Standard normal in double precision: Box-Muller, whose second value serves the next call.
   *
   * z₁ = √(−2 ln(1 − u₂)) · cos(2π u₁), z₂ the same with sin; u of 53 bits.
   */
  normal(): number {
    const cached = this.#cachedNormal;
    if (cached !== undefined) {
      this.#cachedNormal = undefined;
      return cached;
    }
    const angle = 2 * Math.PI * this.#uniform53();
    const radius = Math.sqrt(-2 * Math.log(1 - this.#uniform53()));
    this.#cachedNormal = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  /** The whole state, for {@link setState}; the layout is fera's own and little-endian. */
  getState(): Uint8Array {
    const bytes = new Uint8Array(SAVED_BYTES);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, SAVED_VERSION, true);
    view.setUint32(4, this.#index, true);
    for (let i = 0; i < STATE_WORDS; i++) view.setUint32(8 + 4 * i, this.#words[i]!, true);
    view.setUint32(SAVED_BYTES - 12, this.#cachedNormal === undefined ? 0 : 1, true);
    view.setFloat64(SAVED_BYTES - 8, this.#cachedNormal ?? 0, true);
    return bytes;
  }

  /**
   * Goes on from a saved state.
   *
   * @throws {ConfigError} If the bytes are not what {@link getState} gives; the generator is then unchanged.
   */
  setState(state: Uint8Array): void {
    if (state.length !== SAVED_BYTES) {
      throw new ConfigError(`Generator.setState: a state has ${SAVED_BYTES} bytes; got ${state.length}.`);
    }
    const view = new DataView(state.buffer, state.byteOffset, state.byteLength);
    const version = view.getUint32(0, true);
    const index = view.getUint32(4, true);
    const cached = view.getUint32(SAVED_BYTES - 12, true);
    const normal = view.getFloat64(SAVED_BYTES - 8, true);
    if (version !== SAVED_VERSION || index > STATE_WORDS || cached > 1 || !Number.isFinite(normal)) {
      throw new ConfigError("Generator.setState: the bytes are not a state that getState gave.");
    }
    for (let i = 0; i < STATE_WORDS; i++) this.#words[i] = view.getUint32(8 + 4 * i, true);
    this.#index = index;
    this.#cachedNormal = cached ? normal : undefined;
  }

  #uniform53(): number {
    return Number(this.random64() & 0x1fffffffffffffn) * 2 ** -53;
  }

  #twist(): void {
    const words = this.#words;
    for (let i = 0; i < STATE_WORDS; i++) {
      const mixed = (words[i]! & 0x80000000) | (words[(i + 1) % STATE_WORDS]! & 0x7fffffff);
      words[i] = words[(i + SHIFT) % STATE_WORDS]! ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
    }
    this.#index = 0;
  }
}

/** Where the numbers come from; without a generator, a shared one with a seed of its own in every process. */
export interface RandomOptions {
  generator?: Generator | undefined;
}

/**
 * Standard normal float32 values.
 *
 * Like torch, fewer than 16 values come one by one from {@link Generator.normal}; otherwise uniforms u fill the tensor
 * and each block of 16 becomes z_j = √(−2 ln(1 − u_j)) · cos(2π u_{j+8}) and z_{j+8} the same with sin, j = 0..7. A tail
 * shorter than a block is covered by drawing the last 16 values anew.
 *
 * @throws {ShapeError} If the shape is not of non-negative integers.
 */
export function randn(shape: readonly number[], options: RandomOptions = {}): Tensor<"float32"> {
  checkShape("randn", shape);
  const generator = options.generator ?? sharedGenerator();
  const result = zeros(shape);
  const { data } = result;
  if (data.length < NORMAL_BLOCK) {
    for (let i = 0; i < data.length; i++) data[i] = generator.normal();
    return result;
  }
  for (let i = 0; i < data.length; i++) data[i] = generator.uniform();
  for (let start = 0; start + NORMAL_BLOCK <= data.length; start += NORMAL_BLOCK) toNormalBlock(data, start);
  if (data.length % NORMAL_BLOCK !== 0) {
    const start = data.length - NORMAL_BLOCK;
    for (let i = start; i < data.length; i++) data[i] = generator.uniform();
    toNormalBlock(data, start);
  }
  return result;
}

/** Uniform float32 values in [0, 1), multiples of 2^-24. Throws ShapeError as {@link randn} does. */
export function rand(shape: readonly number[], options: RandomOptions = {}): Tensor<"float32"> {
  checkShape("rand", shape);
  const generator = options.generator ?? sharedGenerator();
  const result = zeros(shape);
  for (let i = 0; i < result.data.length; i++) result.data[i] = generator.uniform();
  return result;
}

/**
 * Random integers in [low, high), as int64.
 *
 * low + bits mod (high − low), with 32 bits, or 64 for ranges of 2^32 and more.
 *
 * @throws {ConfigError} Unless low and high are safe integers with low < high.
 * @throws {ShapeError} If the shape is not of non-negative integers.
 */
export function randint(
  low: number,
  high: number,
  shape: readonly number[],
  options: RandomOptions = {},
): Tensor<"int64"> {
  if (!Number.isSafeInteger(low) || !Number.isSafeInteger(high) || low >= high) {
    throw new ConfigError(`randint: low and high must be integers with low < high; got low=${low}, high=${high}.`);
  }
  checkShape("randint", shape);
  const generator = options.generator ?? sharedGenerator();
  const result = zeros(shape, "int64");
  const range = high - low;
  const base = BigInt(low);
  for (let i = 0; i < result.data.length; i++) {
    const offset =
      range < 2 ** 32 ? BigInt(generator.random32() % range) : generator.random64() % (BigInt(high) - base);
    result.data[i] = base + offset;
  }
  return result;
}

/**
 * A random order of 0 … n − 1, as int64 `[n]` (Fisher-Yates from the front).
 *
 * @throws {ConfigError} Unless n is an integer in 0 … 2^32 − 1.
 */
export function randperm(n: number, options: RandomOptions = {}): Tensor<"int64"> {
  if (!Number.isSafeInteger(n) || n < 0 || n >= 2 ** 32) {
    throw new ConfigError(`randperm: n must be an integer from 0 to 2^32 - 1; got ${n}.`);
  }
  const generator = options.generator ?? sharedGenerator();
  const order = BigInt64Array.from({ length: n }, (_, i) => BigInt(i));
  for (let i = 0; i < n - 1; i++) {
    const other = i + (generator.random32() % (n - i));
    const kept = order[i]!;
    order[i] = order[other]!;
    order[other] = kept;
  }
  return new Tensor("int64", [n], order);
}

function toNormalBlock(data: Float32Array, start: number): void {
  for (let j = start; j < start + NORMAL_BLOCK / 2; j++) {
    const radius = Math.sqrt(-2 * Math.log(1 - data[j]!));
    const angle = 2 * Math.PI * data[j + NORMAL_BLOCK / 2]!;
    data[j] = radius * Math.cos(angle);
    data[j + NORMAL_BLOCK / 2] = radius * Math.sin(angle);
  }
}

let shared: Generator | undefined;

function sharedGenerator(): Generator {
  shared ??= new Generator(crypto.getRandomValues(new Uint32Array(1))[0]!);
  return shared;
}
