// Writes the part of pickle protocol 2 that a state dict needs. Reading is in pickle.ts.
// Source of the opcodes: CPython's Lib/pickletools.py.

/** Builds a pickle opcode by opcode; each method leaves one value on the reader's stack unless it says otherwise. */
export class PickleWriter {
  #bytes = new Uint8Array(1024);
  #length = 0;
  /** Memo index of each global that was written. */
  readonly #globals = new Map<string, number>();

  constructor() {
    this.#put(0x80, 2); // PROTO
  }

  /** Any safe integer. */
  integer(value: number): void {
    if (value >= 0 && value <= 0xff)
      this.#put(0x4b, value); // BININT1
    else if (value >= 0 && value <= 0xffff)
      this.#put(0x4d, value & 0xff, value >> 8); // BININT2
    else if (value === (value | 0))
      this.#put(0x4a, ...littleEndian(BigInt(value), 4)); // BININT
    else this.#put(0x8a, 8, ...littleEndian(BigInt(value), 8)); // LONG1
  }

  boolean(value: boolean): void {
    this.#put(value ? 0x88 : 0x89); // NEWTRUE, NEWFALSE
  }

  text(value: string): void {
    const bytes = new TextEncoder().encode(value);
    this.#put(0x58, ...littleEndian(BigInt(bytes.length), 4)); // BINUNICODE
    this.#append(bytes);
  }

  /** A Python name; recalled from the memo after its first use. */
  global(module: string, name: string): void {
    const key = `${module}\n${name}\n`;
    const known = this.#globals.get(key);
    if (known !== undefined) {
      this.#put(0x68, known); // BINGET
      return;
    }
    this.#put(0x63); // GLOBAL
    this.#append(new TextEncoder().encode(key));
    this.#put(0x71, this.#globals.size); // BINPUT
    this.#globals.set(key, this.#globals.size);
  }

  /** A tuple of the values that `items` writes. */
  tuple(items: () => void): void {
    this.#put(0x28); // MARK
    items();
    this.#put(0x74); // TUPLE
  }

  /** A tuple of integers. */
  integers(values: readonly number[]): void {
    if (values.length === 0)
      this.#put(0x29); // EMPTY_TUPLE
    else {
      this.tuple(() => {
        for (const value of values) this.integer(value);
      });
    }
  }

  /** A collections.OrderedDict of the keys and values that `items` writes in turn. */
  orderedDict(items?: () => void): void {
    this.global("collections", "OrderedDict");
    this.#put(0x29, 0x52); // EMPTY_TUPLE, REDUCE
    if (!items) return;
    this.#put(0x28); // MARK
    items();
    this.#put(0x75); // SETITEMS
  }

  /** Replaces a callable and its tuple of arguments by the call's result. */
  reduce(): void {
    this.#put(0x52); // REDUCE
  }

  /** Replaces the last value by the object whose persistent id it is. */
  persistentId(): void {
    this.#put(0x51); // BINPERSID
  }

  /** Ends the pickle and returns it. */
  finish(): Uint8Array {
    this.#put(0x2e); // STOP
    return this.#bytes.slice(0, this.#length);
  }

  #put(...bytes: number[]): void {
    this.#append(bytes);
  }

  #append(bytes: ArrayLike<number>): void {
    const needed = this.#length + bytes.length;
    if (needed > this.#bytes.length) {
      const grown = new Uint8Array(2 * needed);
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    this.#bytes.set(bytes, this.#length);
    this.#length = needed;
  }
}

function littleEndian(value: bigint, length: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigInt64(0, value, true);
  return bytes.subarray(0, length);
}
