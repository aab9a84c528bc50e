// The gates of an adapter along a sampling run, as a picture.

import { writePng } from "../images/image-file.js";
import { renderPlot } from "../images/plot.js";
import type { RoutingTrace } from "../pipelines/index.js";

/**
 * Draws the gates over the timesteps, from noise (left) to image (right), as stacked areas; means over the images.
 *
 * @throws {ConfigError} If the trace has fewer than two different timesteps.
 */
export async function drawRouting(path: string, { timesteps, gates }: RoutingTrace): Promise<void> {
  const experts = gates[0]![0]!.length;
  const series = Array.from({ length: experts }, (_, expert) => ({
    label: `expert ${expert + 1}`,
    x: timesteps,
    y: gates.map((images) => images.reduce((sum, row) => sum + row[expert]!, 0) / images.length),
  }));
  const picture = await renderPlot({
    kind: "area",
    title: "Routing along sampling",
    xLabel: "timestep, from noise to image",
    yLabel: "gate",
    xRange: [Math.max(...timesteps), Math.min(...timesteps)],
    yRange: [0, 1],
    series,
  });
  await writePng(path, picture);
}
