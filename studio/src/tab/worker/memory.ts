// How much memory WebAssembly has taken. Must be imported before anything that makes one.

const memories = new Set<WebAssembly.Memory>();

// ONNX Runtime makes its memory itself and shows it to nobody; it only grows, so its size is the most that was needed.
WebAssembly.Memory = class extends WebAssembly.Memory {
  constructor(descriptor: WebAssembly.MemoryDescriptor) {
    super(descriptor);
    memories.add(this);
  }
};

/** Bytes of all memories of WebAssembly in this worker; what is on a GPU is not among them. */
export function wasmMemoryBytes(): number {
  let bytes = 0;
  for (const { buffer } of memories) bytes += buffer.byteLength;
  return bytes;
}
