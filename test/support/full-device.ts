// The device of Linux that is always full, where there is one.

import { statSync } from "node:fs";

/** Whether `/dev/full` is that device. */
export const HAS_FULL_DEVICE = statSync("/dev/full", { throwIfNoEntry: false })?.isCharacterDevice() ?? false;
