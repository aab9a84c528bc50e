// TensorBoard's event files: TFRecords of Event messages. Writes scalars and pictures; reads nothing but for tests.

import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";

/** A value of a step. */
export type SummaryValue =
  | { tag: string; scalar: number }
  /** A PNG file's bytes. */
  | { tag: string; png: Uint8Array; width: number; height: number };

/** One record's message; one of the three. @see tensorflow/core/util/event.proto */
export interface Event {
  /** Seconds since 1970. */
  wallTime: number;
  step: number;
  /** Of a file's first record: {@link FILE_VERSION}. */
  fileVersion?: string;
  /** The training begins, or goes on, at this step: what other files of the folder have of it and later is void. */
  isStart?: boolean;
  values?: readonly SummaryValue[];
}

/** From this version on, readers heed `isStart`. */
export const FILE_VERSION = "brain.Event:2";
const START = 1;
const RGB = 3;

/** An event as a record. */
export function eventRecord({ wallTime, step, fileVersion, isStart, values }: Event): Uint8Array {
  const event = new BinaryWriter();
  event.tag(1, WireType.Bit64).double(wallTime);
  // A field of value 0 is left out.
  if (step !== 0) event.tag(2, WireType.Varint).int64(step);
  if (fileVersion !== undefined) event.tag(3, WireType.LengthDelimited).string(fileVersion);
  if (values !== undefined) {
    const summary = new BinaryWriter();
    for (const value of values) summary.tag(1, WireType.LengthDelimited).bytes(valueMessage(value));
    event.tag(5, WireType.LengthDelimited).bytes(summary.finish());
  }
  if (isStart) {
    event.tag(7, WireType.LengthDelimited).bytes(new BinaryWriter().tag(1, WireType.Varint).int32(START).finish());
  }
  return tfRecord(event.finish());
}

function valueMessage(value: SummaryValue): Uint8Array {
  const message = new BinaryWriter().tag(1, WireType.LengthDelimited).string(value.tag);
  if ("scalar" in value) return message.tag(2, WireType.Bit32).float(value.scalar).finish();
  const image = new BinaryWriter();
  image.tag(1, WireType.Varint).int32(value.height);
  image.tag(2, WireType.Varint).int32(value.width);
  image.tag(3, WireType.Varint).int32(RGB);
  image.tag(4, WireType.LengthDelimited).bytes(value.png);
  return message.tag(4, WireType.LengthDelimited).bytes(image.finish()).finish();
}

/** Length (uint64), its masked CRC, the data, its masked CRC, all little-endian. @see tensorflow/core/lib/io/record_writer.h */
export function tfRecord(data: Uint8Array): Uint8Array {
  const record = new Uint8Array(12 + data.length + 4);
  const view = new DataView(record.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedCrc32c(record.subarray(0, 8)), true);
  record.set(data, 12);
  view.setUint32(12 + data.length, maskedCrc32c(data), true);
  return record;
}

/** The CRC rotated by 15 bits plus a constant, so that a CRC over data with CRCs in it stays meaningful. */
export function maskedCrc32c(data: Uint8Array): number {
  const crc = crc32c(data);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** Castagnoli's polynomial, bits reversed. @see RFC 3720, appendix B.4 */
const POLYNOMIAL = 0x82f63b78;

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ POLYNOMIAL : value >>> 1;
  return value;
});

/** CRC-32C. */
export function crc32c(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) crc = TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
