// A model of how many ranks speed up a training: measured seconds of a step and size of its message, stated figures of networks.
//   npx tsx bench/distributed/scaling.ts docs/scaling.png
//
// A step on N hosts, each with the same part of a batch that grows with N, takes
//   T(N) = C + 2·(N − 1)/N · M / b + 2·(N − 1) · δ
// C seconds of computing, M bytes of gradients, b bytes a second, δ seconds of delay one way: the ring that large all-reduces
// take, in which every byte is sent twice and every part passes every host twice. Speed-up is N·C / T(N).
// Assumed: hosts are alike and never wait for a slower one; links carry b both ways at once; nothing is computed meanwhile.

import { formatTable } from "../../src/cli/format.js";
import { renderGrid } from "../../src/images/grid.js";
import { writePng } from "../../src/images/image-file.js";
import { renderPlot } from "../../src/images/plot.js";

/** A training. */
interface Work {
  name: string;
  /** C, of one host's part of a batch. */
  stepSeconds: number;
  /** M. */
  messageBytes: number;
}

/** FeRA of rank 4 has 1.81 million trained values at Stable Diffusion 1.5's size, of rank 8 at the embedded one's 0.573. */
const WORKS: readonly Work[] = [
  // bench/NOTES.md, "64×64": two cores, a batch of 1 for each host.
  { name: "Stable Diffusion 1.5, 64×64", stepSeconds: 13.7, messageBytes: 7.25e6 },
  // A GPU that is a hundred times as fast: where the network begins to count.
  { name: "the same, 100 times as fast", stepSeconds: 0.137, messageBytes: 7.25e6 },
];
const NETWORKS = [
  { name: "10 Gbit/s, 0.1 ms", bytesPerSecond: 1.25e9, delaySeconds: 1e-4 },
  { name: "10 Gbit/s, 1 ms", bytesPerSecond: 1.25e9, delaySeconds: 1e-3 },
  { name: "1 Gbit/s, 0.1 ms", bytesPerSecond: 1.25e8, delaySeconds: 1e-4 },
  { name: "1 Gbit/s, 1 ms", bytesPerSecond: 1.25e8, delaySeconds: 1e-3 },
] as const;
const HOSTS = [1, 2, 4, 8, 16, 32, 64];

/** How long the all-reduce takes. */
const sumSeconds = (
  hosts: number,
  bytes: number,
  { bytesPerSecond, delaySeconds }: (typeof NETWORKS)[number],
): number => ((2 * (hosts - 1)) / hosts) * (bytes / bytesPerSecond) + 2 * (hosts - 1) * delaySeconds;

const speedUp = (hosts: number, { stepSeconds, messageBytes }: Work, network: (typeof NETWORKS)[number]): number =>
  (hosts * stepSeconds) / (stepSeconds + sumSeconds(hosts, messageBytes, network));

const rows = WORKS.flatMap((work) =>
  NETWORKS.map((network) => [
    work.name,
    network.name,
    ...HOSTS.slice(1).map((hosts) => speedUp(hosts, work, network).toFixed(hosts < 10 ? 3 : 2)),
  ]),
);
console.log(formatTable([["training", "network", ...HOSTS.slice(1).map(String)], ...rows], 2).join("\n"));
const [path] = process.argv.slice(2);
if (path) {
  const plots = WORKS.map((work) =>
    renderPlot({
      ...{ title: work.name, xLabel: "hosts", yLabel: "speed-up", width: 480, height: 340 },
      ...{ xScale: "log", yScale: "log" },
      series: [
        { label: "hosts", x: HOSTS, y: HOSTS, faint: true },
        ...NETWORKS.map((network) => ({
          label: network.name,
          x: HOSTS,
          y: HOSTS.map((hosts) => speedUp(hosts, work, network)),
        })),
      ],
    }),
  );
  await writePng(path, await renderGrid({ rows: [await Promise.all(plots)], scale: 1 }));
}
