// What every MPI call needs: memory that stays where it is, the check of its result, and whether what it began is done.

import { RuntimeError } from "../errors.js";
import type { MpiLibrary } from "./mpi-library.js";

/** MPI_MAX_ERROR_STRING and MPI_MAX_PROCESSOR_NAME are 256 and 512 at most. */
export const TEXT_BYTES = 1024;

/** Bytes up to which V8 keeps a typed array in its own heap, where it may move. */
const HEAP_BYTES = 64;

const flag = new Int32Array(new ArrayBuffer(HEAP_BYTES));

/** Whether what was begun under this request is done. @throws {RuntimeError} As {@link check}. */
export function isDone(mpi: MpiLibrary, name: string, request: BigInt64Array): boolean {
  check(mpi, name, mpi.calls.MPI_Test(request, flag, mpi.ignoreStatus));
  return flag[0] !== 0;
}

/** @throws {RuntimeError} With MPI's own words, where a call failed. */
export function check(mpi: MpiLibrary, name: string, code: number): void {
  if (code === 0) return;
  const [text, length] = [memory(Uint8Array, TEXT_BYTES), memory(Int32Array, 1)];
  mpi.calls.MPI_Error_string(code, text, length);
  throw new RuntimeError(`${name}: ${new TextDecoder().decode(text.subarray(0, length[0]))} (${mpi.version})`);
}

/** Whether an array's memory stays where it is. */
export const isFixed = ({ byteLength }: Float32Array): boolean => byteLength > HEAP_BYTES;

/** Memory that stays where it is while MPI writes to it. */
export function memory<T>(type: MemoryOf<T>, length: number): T {
  return new type(new ArrayBuffer(Math.max(HEAP_BYTES, length * type.BYTES_PER_ELEMENT)), 0, length);
}

interface MemoryOf<T> {
  new (buffer: ArrayBuffer, offset: number, length: number): T;
  readonly BYTES_PER_ELEMENT: number;
}
