// The routing of an image: gates and energies from noise to image, side by side.

import { useMemo } from "preact/hooks";
import type { RoutingTrace } from "../../../src/studio/protocol.js";
import { Chart } from "./chart.js";
import { describeTrace, traceCurves } from "./routing.js";

interface Props {
  trace: RoutingTrace;
  /** Names the charts: "Gates of …". */
  of: string;
  /** Beside a picture: gates alone, low. */
  isSmall?: boolean;
}

const X_LABEL = "timestep, from noise to image";

export function RoutingCharts({ trace, of, isSmall = false }: Props) {
  const { gates, energies } = useMemo(() => traceCurves(trace), [trace]);
  const text = describeTrace(trace);
  const common = { xLabel: X_LABEL, isStacked: true, isReversed: true, height: isSmall ? 130 : 180 };
  return (
    <div class="stack routing">
      <p>{text}</p>
      <div class={isSmall ? "" : "pair"}>
        <Chart title={`Gates of ${of}`} curves={gates} summary={text} sync={`routing ${of}`} {...common} />
        {!isSmall && <Chart title={`Energies of ${of}`} curves={energies} sync={`routing ${of}`} {...common} />}
      </div>
    </div>
  );
}
