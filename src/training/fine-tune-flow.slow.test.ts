import { it } from "vitest";
import { writeTinyKlein } from "../../test/support/tiny-flow-pipeline.js";
import { trainTinyFlow } from "../../test/support/train-tiny-flow.js";

// Captions are 512 tokens through 28 layers, whatever the model's width.
it("FLUX.2-klein is trained on a folder of images, and draws with the adapter", () => trainTinyFlow(writeTinyKlein));
