// The rooms of src/, lowest first, and what each may import: the one place that says so. `npm run lint` holds it.

/** A folder under src/, or a file that lies beside them, and the rooms whose files it may import. */
export const ROOMS: Readonly<Record<string, readonly string[]>> = {
  errors: [],
  tensor: ["errors"],
  // Ranks of one training; MPI is loaded when it is asked for.
  distributed: ["errors"],
  graph: ["errors", "tensor"],
  autodiff: ["errors", "tensor", "graph"],
  onnx: ["errors", "tensor", "graph"],
  runtime: ["errors", "tensor", "graph", "onnx"],
  storage: ["errors", "tensor"],
  images: ["errors", "tensor", "storage"],
  nn: ["errors", "tensor", "graph"],
  schedulers: ["errors", "tensor", "storage"],
  diffusion: ["errors", "tensor", "graph", "runtime", "nn", "schedulers"],
  models: ["errors", "tensor", "graph", "runtime", "storage", "nn", "diffusion"],
  adapters: ["errors", "tensor", "graph", "runtime", "storage", "nn", "diffusion"],
  pipelines: ["errors", "tensor", "storage", "images", "schedulers", "diffusion", "models", "adapters"],
  training: [
    ...["errors", "tensor", "graph", "autodiff", "runtime", "storage", "images", "nn", "schedulers"],
    ...["diffusion", "models", "adapters", "pipelines", "distributed"],
  ],
  demo: ["errors", "tensor", "images", "diffusion", "runtime", "storage", "adapters", "pipelines", "training"],
  evidence: [
    ...["errors", "tensor", "runtime", "images", "diffusion", "storage", "adapters", "pipelines", "training", "demo"],
  ],
  // The page's server. Its page, studio/, is not part of src/: it imports the protocol, and the library's web entry.
  studio: ["errors", "tensor", "runtime", "storage", "images", "models", "adapters", "pipelines", "training"],
  cli: [
    ...["errors", "distributed", "tensor", "runtime", "storage", "images", "schedulers", "diffusion", "models"],
    ...["adapters", "pipelines", "training", "demo", "evidence", "studio"],
  ],
  // The entries of the package: making images, and with training.
  inference: [
    ...["errors", "tensor", "graph", "images", "nn", "runtime", "storage", "schedulers", "models", "adapters"],
    ...["pipelines", "diffusion"],
  ],
  "node-inference": ["inference", "runtime", "storage", "images"],
  "web-inference": ["inference", "runtime", "storage"],
  library: ["inference", "autodiff", "diffusion", "training"],
  index: ["library", "node-inference", "training", "distributed"],
  web: ["library", "web-inference"],
};

/** Imports that a method makes when it is called, `import()`: training, from rooms that must not load it otherwise. */
export const LAZY: Readonly<Record<string, readonly string[]>> = {
  adapters: ["training", "autodiff"],
};
