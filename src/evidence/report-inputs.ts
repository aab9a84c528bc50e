// What the study's page is made of.

import type { Budget } from "./budget.js";
import type { Plan } from "./plan.js";
import type { RunRecord } from "./records.js";
import type { AllNamesComparison } from "./report-all-names.js";
import type { Comparison } from "./report-groups.js";
import type { SameRateComparison } from "./report-same-rate.js";
import type { Study } from "./study-folder.js";

/** What a report is made of. */
export interface ReportInputs {
  study: Study;
  /** Of all parts. */
  plan: Plan;
  records: ReadonlyMap<string, RunRecord>;
  budget: Budget;
}

/** What the page is made of. */
export interface PageInputs extends ReportInputs {
  /** The main part, on the styles that claims are made on; undefined where there is nothing to compare. */
  main: Comparison | undefined;
  sameRate: SameRateComparison;
  allNames: AllNamesComparison | undefined;
  plots: readonly { file: string; title: string }[];
  runsFile: string;
}
