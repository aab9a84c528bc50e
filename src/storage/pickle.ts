// A reader of pickles that executes nothing: it knows the opcodes that torch.save's state dicts consist of, and calls
// only what its caller lists by name. Anything else is refused.
// Source of the opcodes: CPython's Lib/pickletools.py, protocol 2.

import { FormatError } from "../errors.js";

/** A Python tuple; lists become arrays and dicts become Maps. */
export class PickleTuple {
  constructor(readonly items: readonly unknown[]) {}
}

/** A Python name such as `torch.FloatStorage`, resolved against the caller's list only. */
export class PickleGlobal {
  constructor(
    readonly name: string,
    /** What REDUCE may call; undefined for names that are only mentioned. */
    readonly call: ((args: readonly unknown[]) => unknown) | undefined,
  ) {}
}

/** What a pickle may refer to. */
export interface PickleContext {
  /** Every allowed global by its dotted name. */
  globals: ReadonlyMap<string, PickleGlobal>;
  /** Resolves a persistent id. */
  persistentLoad: (id: unknown) => unknown;
}

const PROTOCOL = 2;

/**
 * Reads a protocol-2 pickle.
 *
 * None, booleans, integers (up to 2^53), floats and strings become their JavaScript counterparts. Attributes that BUILD
 * sets on a dict (torch puts `_metadata` there) are dropped.
 *
 * @throws {FormatError} At an opcode or a global that is not known, or if the pickle is damaged.
 */
export function unpickle(bytes: Uint8Array, context: PickleContext, source: string): unknown {
  return new Unpickler(bytes, context, source).run();
}

class Unpickler {
  readonly #view: DataView;
  #position = 0;
  #stack: unknown[] = [];
  /** The stacks below each open MARK. */
  readonly #marks: unknown[][] = [];
  readonly #memo = new Map<number, unknown>();

  constructor(
    readonly bytes: Uint8Array,
    readonly context: PickleContext,
    readonly source: string,
  ) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  run(): unknown {
    for (;;) {
      const at = this.#position;
      const opcode = this.#u8();
      if (opcode === 0x2e /* STOP */) {
        const result = this.#pop();
        if (this.#marks.length > 0 || this.#stack.length > 0) this.#fail("values are left over at its end");
        return result;
      }
      this.#step(opcode, at);
    }
  }

  #step(opcode: number, at: number): void {
    switch (opcode) {
      case 0x80: {
        const protocol = this.#u8();
        if (protocol !== PROTOCOL) {
          this.#fail(
            `it has protocol ${protocol}, but torch.save writes protocol ${PROTOCOL}; save it again with that`,
          );
        }
        return;
      }
      case 0x28: // MARK
        this.#marks.push(this.#stack);
        this.#stack = [];
        return;
      case 0x4e: // NONE
        this.#push(null);
        return;
      case 0x88: // NEWTRUE
        this.#push(true);
        return;
      case 0x89: // NEWFALSE
        this.#push(false);
        return;
      case 0x4b: // BININT1
        this.#push(this.#u8());
        return;
      case 0x4d: // BININT2
        this.#push(this.#view.getUint16(this.#take(2), true));
        return;
      case 0x4a: // BININT
        this.#push(this.#view.getInt32(this.#take(4), true));
        return;
      case 0x8a: // LONG1
        this.#push(this.#long(this.#u8()));
        return;
      case 0x47: // BINFLOAT
        this.#push(this.#view.getFloat64(this.#take(8), false));
        return;
      case 0x58: // BINUNICODE
        this.#push(this.#text(this.#u32()));
        return;
      case 0x29: // EMPTY_TUPLE
        this.#push(new PickleTuple([]));
        return;
      case 0x85: // TUPLE1
      case 0x86: // TUPLE2
      case 0x87: // TUPLE3
        this.#push(new PickleTuple(this.#popMany(opcode - 0x84)));
        return;
      case 0x74: // TUPLE
        this.#push(new PickleTuple(this.#popToMark()));
        return;
      case 0x5d: // EMPTY_LIST
        this.#push([]);
        return;
      case 0x61: // APPEND
        this.#append([this.#pop()]);
        return;
      case 0x65: // APPENDS
        this.#append(this.#popToMark());
        return;
      case 0x7d: // EMPTY_DICT
        this.#push(new Map());
        return;
      case 0x73: // SETITEM
        this.#setItems(this.#popMany(2));
        return;
      case 0x75: // SETITEMS
        this.#setItems(this.#popToMark());
        return;
      case 0x71: // BINPUT
        this.#memo.set(this.#u8(), this.#top());
        return;
      case 0x72: // LONG_BINPUT
        this.#memo.set(this.#u32(), this.#top());
        return;
      case 0x68: // BINGET
        this.#pushMemo(this.#u8());
        return;
      case 0x6a: // LONG_BINGET
        this.#pushMemo(this.#u32());
        return;
      case 0x63: // GLOBAL
        this.#global();
        return;
      case 0x52: // REDUCE
        this.#reduce();
        return;
      case 0x62: // BUILD
        this.#pop();
        if (!(this.#top() instanceof Map)) this.#fail("it sets attributes on something that is not a dict");
        return;
      case 0x51: // BINPERSID
        this.#push(this.context.persistentLoad(this.#pop()));
        return;
      default:
        this.#fail(`opcode 0x${opcode.toString(16)} at byte ${at} is not one that a state dict needs`);
        return;
    }
  }

  #global(): void {
    const name = `${this.#line()}.${this.#line()}`;
    const known = this.context.globals.get(name);
    if (!known) {
      this.#fail(
        `it refers to ${JSON.stringify(name.slice(0, 200))}, which is not part of a plain state dict, and is refused`,
      );
    }
    this.#push(known);
  }

  #reduce(): void {
    const [callable, args] = this.#popMany(2);
    if (!(callable instanceof PickleGlobal) || !callable.call || !(args instanceof PickleTuple)) {
      this.#fail(`it calls ${callable instanceof PickleGlobal ? callable.name : "something"} in a way not known here`);
    }
    this.#push(callable.call(args.items));
  }

  #append(items: readonly unknown[]): void {
    const list = this.#top();
    if (!Array.isArray(list)) this.#fail("it appends to something that is not a list");
    for (const item of items) list.push(item);
  }

  #setItems(items: readonly unknown[]): void {
    const dict = this.#top();
    if (!(dict instanceof Map)) this.#fail("it sets items of something that is not a dict");
    if (items.length % 2 !== 0) this.#fail("a key has no value");
    for (let i = 0; i < items.length; i += 2) dict.set(items[i], items[i + 1]);
  }

  #push(value: unknown): void {
    this.#stack.push(value);
  }

  #top(): unknown {
    if (this.#stack.length === 0) this.#fail("it takes a value from an empty stack");
    return this.#stack.at(-1);
  }

  #pop(): unknown {
    const value = this.#top();
    this.#stack.pop();
    return value;
  }

  #popMany(count: number): unknown[] {
    if (this.#stack.length < count) this.#fail("it takes a value from an empty stack");
    return this.#stack.splice(-count);
  }

  #popToMark(): unknown[] {
    const below = this.#marks.pop();
    if (!below) return this.#fail("it closes a group that was never opened");
    const items = this.#stack;
    this.#stack = below;
    return items;
  }

  #pushMemo(index: number): void {
    if (!this.#memo.has(index)) this.#fail(`it recalls value ${index}, which was never stored`);
    this.#push(this.#memo.get(index));
  }

  #long(length: number): number {
    const start = this.#take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.bytes[start + i]!);
    const signed = Number(BigInt.asIntN(8 * length, value));
    if (!Number.isSafeInteger(signed)) this.#fail("it holds an integer beyond 2^53");
    return signed;
  }

  #line(): string {
    const end = this.bytes.indexOf(0x0a, this.#position);
    if (end < 0) this.#fail("it is truncated");
    const text = this.#text(end - this.#position);
    this.#position++;
    return text;
  }

  #text(length: number): string {
    const start = this.#take(length);
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
        this.bytes.subarray(start, start + length),
      );
    } catch (cause) {
      return this.#fail("a string is not valid UTF-8", cause);
    }
  }

  #u8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  #u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  /** Moves past `length` bytes and returns where they begin. */
  #take(length: number): number {
    const start = this.#position;
    if (length > this.bytes.length - start) this.#fail("it is truncated");
    this.#position += length;
    return start;
  }

  #fail(message: string, cause?: unknown): never {
    throw new FormatError(this.source, `the pickle cannot be read: ${message}.`, { cause });
  }
}
