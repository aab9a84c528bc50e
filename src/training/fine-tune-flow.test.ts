import { it } from "vitest";
import { writeTinyZImage } from "../../test/support/tiny-flow-pipeline.js";
import { trainTinyFlow } from "../../test/support/train-tiny-flow.js";

it("Z-Image is trained on a folder of images, and draws with the adapter", () => trainTinyFlow(writeTinyZImage));
