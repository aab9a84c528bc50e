// The autoencoders that a pipeline can have.

import type { AutoencoderKL } from "./autoencoder-kl/autoencoder-kl.js";
import type { AutoencoderKLFlux2 } from "./autoencoder-kl/autoencoder-kl-flux2.js";
import type { AutoencoderTiny } from "./autoencoder-tiny/autoencoder-tiny.js";

/** Between images and latents. */
export type Autoencoder = AutoencoderKL | AutoencoderKLFlux2 | AutoencoderTiny;
