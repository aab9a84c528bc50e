// Registers Node's ONNX Runtime and file access; imported for its side effects by whatever runs a command.

import "../storage/node.js";
import "../runtime/node.js";
