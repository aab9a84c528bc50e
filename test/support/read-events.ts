// Reads event files back, checksums included.

import { BinaryReader, type WireType } from "@bufbuild/protobuf/wire";
import { maskedCrc32c } from "../../src/training/report/event-file.js";

/** One event. */
export interface ReadEvent {
  step: number;
  fileVersion?: string;
  isStart?: boolean;
  values: { tag: string; scalar?: number; png?: Uint8Array; width?: number; height?: number }[];
}

/** All events of a file. @throws Where a record is cut off or damaged. */
export function readEvents(bytes: Uint8Array): ReadEvent[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const events: ReadEvent[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Number(view.getBigUint64(at, true));
    const data = bytes.subarray(at + 12, at + 12 + length);
    if (view.getUint32(at + 8, true) !== maskedCrc32c(bytes.subarray(at, at + 8))) throw new Error("length's CRC");
    if (view.getUint32(at + 12 + length, true) !== maskedCrc32c(data)) throw new Error("data's CRC");
    events.push(readEvent(data));
    at += 16 + length;
  }
  return events;
}

function readEvent(data: Uint8Array): ReadEvent {
  const event: ReadEvent = { step: 0, values: [] };
  eachField(data, (field, reader) => {
    if (field === 2) event.step = Number(reader.int64());
    else if (field === 3) event.fileVersion = reader.string();
    else if (field === 5) eachField(reader.bytes(), (_, inner) => void event.values.push(readValue(inner.bytes())));
    else if (field === 7) {
      eachField(reader.bytes(), (_, inner) => {
        event.isStart = inner.int32() === 1;
      });
    } else return false;
    return true;
  });
  return event;
}

function readValue(data: Uint8Array): ReadEvent["values"][number] {
  const value: ReadEvent["values"][number] = { tag: "" };
  eachField(data, (field, reader) => {
    if (field === 1) value.tag = reader.string();
    else if (field === 2) value.scalar = reader.float();
    else if (field === 4) {
      eachField(reader.bytes(), (part, inner) => {
        if (part === 1) value.height = inner.int32();
        else if (part === 2) value.width = inner.int32();
        else if (part === 4) value.png = inner.bytes();
        else return false;
        return true;
      });
    } else return false;
    return true;
  });
  return value;
}

/** @param read - Returns false where it leaves the field. */
function eachField(data: Uint8Array, read: (field: number, reader: BinaryReader) => unknown): void {
  const reader = new BinaryReader(data);
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (read(field, reader) === false) reader.skip(type as WireType);
  }
}
