// Registers Node's ONNX Runtime and file access; imported for its side effects by whatever runs a command.

import "../adapters/adapter-files-node.js";
import "../models/pretrained-node.js";
import "../pipelines/pipeline-node.js";
import "../runtime/node.js";
