// A chart: uPlot on a canvas, with a legend of buttons, a summary, and the numbers in a table.

import type { ComponentChildren } from "preact";
import { useEffect, useId, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import "./chart.css";
import {
  type ChartTable,
  type Curve,
  formatAxis,
  formatValue,
  joined,
  lastKnown,
  stacked,
  summarized,
  thinnedRows,
} from "./chart-data.js";
import { schemeChanges, tokenColor, translucent } from "./scheme.js";

interface Props {
  title: string;
  curves: readonly Curve[];
  xLabel: string;
  /** Curves are shares that add up: drawn on top of each other. */
  isStacked?: boolean;
  isLog?: boolean;
  /** The highest x is left: from noise to image. */
  isReversed?: boolean;
  /** Charts of the same key move their cursors together. */
  sync?: string;
  height?: number;
  /** What is to be seen; made of the curves by default. */
  summary?: string;
  /** Controls beside the title. */
  children?: ComponentChildren;
}

const HEIGHT = 220;
const TABLE_ROWS = 12;
/** Distances between marks of an axis that counts: there is no half step. */
const WHOLE = Array.from({ length: 8 }, (_, power) => [1, 2, 5].map((first) => first * 10 ** power)).flat();

export function Chart(props: Props) {
  const { title, curves, xLabel, isStacked = false, isReversed = false, height = HEIGHT, children } = props;
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  const [place, setPlace] = useState<number | null>(null);
  const titleId = useId();
  const table = useMemo(() => joined(curves), [curves]);
  const isLog = (props.isLog ?? false) && table.columns.some((column) => column.some((value) => (value ?? 0) > 0));
  const isEmpty = table.x.length === 0;
  // What cannot be changed in a plot that is there.
  const shape = JSON.stringify([
    curves.map(({ label, color, isFaint, isDashed }) => [label, color, isFaint, isDashed]),
    [isLog, isStacked, isReversed, height, xLabel, props.sync, schemeChanges.value],
    isEmpty,
  ]);

  // The shape is all that the options depend on.
  useEffect(() => {
    // uPlot 1.6 fails at the axes of a plot that has had no points.
    if (isEmpty) return;
    const element = host.current!;
    const made = new uPlot(
      plotOptions({ ...props, isLog, isStacked, isReversed, height, width: element.clientWidth, onCursor: setPlace }),
      drawnData(table, isStacked, isLog),
      element,
    );
    plot.current = made;
    const observer = new ResizeObserver(() => {
      if (element.clientWidth > 0) made.setSize({ width: element.clientWidth, height });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.current = undefined;
      made.destroy();
    };
  }, [shape]);

  useEffect(() => {
    const made = plot.current;
    if (!made) return;
    // Who has zoomed in keeps looking at the same steps.
    const { min, max } = made.scales.x!;
    const before = made.data[0];
    // A plot that was made just now has no range yet; one of a single step has more than its data.
    const isWhole = min == null || (min <= before[0]! && max! >= before.at(-1)!);
    made.setData(drawnData(table, isStacked, isLog), isWhole || before.length < 2);
    if (!isWhole) made.redraw();
  }, [table, isStacked, isLog]);

  // A plot of another shape is made with all of them shown.
  useEffect(() => {
    for (const [i, { label }] of curves.entries()) {
      if (plot.current?.series[i + 1]) plot.current.setSeries(i + 1, { show: !hidden.has(label) });
    }
  }, [hidden, shape]);

  const axisName = xLabel.split(",")[0]!;
  const told = curves.filter(({ isFaint }) => !isFaint);
  const summary = props.summary ?? told.map((curve) => summarized(curve, axisName)).join(" ");
  // Along a training the newest is of interest; along anything else, what the pointer is at.
  const isTraining = xLabel === "step";
  const row = place ?? (isTraining ? table.x.length - 1 : undefined);
  return (
    <figure class="chart" aria-labelledby={titleId}>
      <figcaption class="row">
        <h3 id={titleId}>{title}</h3>
        {children}
      </figcaption>
      <div class="plot" ref={host} style={{ height: `${height}px` }} role="img" aria-label={`${title}. ${summary}`} />
      <ul class="legend" aria-label={`Curves of ${title}`}>
        {curves.map(({ label, color, isFaint }, i) => {
          if (isFaint) return undefined;
          const value = row === undefined ? undefined : lastKnown(table.columns[i] ?? [], row);
          const isShown = !hidden.has(label);
          const toggle = () => {
            const next = new Set(hidden);
            if (!next.delete(label)) next.add(label);
            setHidden(next);
          };
          return (
            <li key={label}>
              <button type="button" aria-pressed={isShown} disabled={isStacked} onClick={toggle}>
                <span class="swatch" style={{ background: `var(${color})` }} />
                {label} <span class="value">{value === undefined ? "" : formatValue(value)}</span>
              </button>
            </li>
          );
        })}
        <li class="muted at">
          {table.x.length === 0 && "nothing yet"}
          {row !== undefined &&
            table.x[row] !== undefined &&
            `${place === null ? "newest: " : ""}${axisName} ${table.x[row]}`}
        </li>
      </ul>
      <details>
        <summary>As a table</summary>
        <NumberTable table={table} curves={curves} xLabel={xLabel} title={title} />
      </details>
    </figure>
  );
}

function NumberTable({
  table,
  curves,
  xLabel,
  title,
}: { table: ChartTable } & Pick<Props, "curves" | "xLabel" | "title">) {
  return (
    <div class="numbers">
      <table>
        <caption class="visually-hidden">{title}</caption>
        <thead>
          <tr>
            <th scope="col">{xLabel}</th>
            {curves.map(({ label }) => (
              <th key={label} scope="col">
                {label}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {thinnedRows(table.x.length, TABLE_ROWS).map((row) => (
            <tr key={row}>
              <th scope="row">{table.x[row]}</th>
              {curves.map(({ label }, i) => {
                const value = table.columns[i]![row];
                return <td key={label}>{typeof value === "number" ? formatValue(value) : "–"}</td>;
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function drawnData(table: ChartTable, isStacked: boolean, isLog: boolean): uPlot.AlignedData {
  const { x, columns } = isStacked ? stacked(table) : table;
  // A logarithmic scale has no place for zero.
  const drawn = isLog
    ? columns.map((column) => column.map((value) => (value !== null && value > 0 ? value : null)))
    : columns;
  return [x, ...drawn] as uPlot.AlignedData;
}

type OptionInputs = Props &
  Required<Pick<Props, "isLog" | "isStacked" | "isReversed" | "height">> & {
    width: number;
    onCursor(place: number | null): void;
  };

function plotOptions(inputs: OptionInputs): uPlot.Options {
  const { curves, isLog, isStacked, isReversed, xLabel, height, width, sync, onCursor } = inputs;
  const isCounted = /^(step|timestep)\b/.test(xLabel);
  const muted = tokenColor("--muted");
  const grid = { stroke: tokenColor("--line"), width: 1 };
  const axis = { stroke: muted, grid, ticks: grid, font: "12px system-ui, sans-serif" };
  const values: uPlot.Axis.DynamicValues = (_, splits, __, ___, increment) => formatAxis(splits, increment);
  return {
    ...{ width, height, legend: { show: false } },
    cursor: { y: false, points: { size: 6 }, ...(sync && { sync: { key: sync } }) },
    scales: {
      x: { time: false, dir: isReversed ? -1 : 1 },
      y: isStacked ? { range: [0, 1] } : { distr: isLog ? 3 : 1 },
    },
    axes: [
      {
        ...axis,
        label: xLabel,
        labelSize: 18,
        labelFont: "12px system-ui, sans-serif",
        size: 28,
        values,
        ...(isCounted && { incrs: WHOLE }),
      },
      { ...axis, size: 58, values },
    ],
    series: [
      {},
      ...curves.map(({ label, color, isFaint, isDashed }) => {
        const stroke = tokenColor(color);
        return {
          label,
          stroke: isFaint ? translucent(stroke, 0.28) : stroke,
          width: isFaint ? 1 : 2,
          spanGaps: true,
          ...(isDashed && { dash: [6, 4] }),
          // The lowest of a stack fills down to the axis; the others down to the one below, as bands.
          ...(isStacked && { fill: translucent(stroke, 0.55), width: 1 }),
          // Of few points each is worth a dot.
          points: { show: isStacked || isFaint ? false : undefined },
        } as uPlot.Series;
      }),
    ],
    ...(isStacked && {
      bands: curves.slice(1).map(({ color }, i) => ({
        series: [i + 2, i + 1] as [number, number],
        fill: translucent(tokenColor(color), 0.55),
      })),
    }),
    hooks: { setCursor: [({ cursor }) => onCursor(cursor.idx ?? null)] },
  };
}
