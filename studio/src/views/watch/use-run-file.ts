// The address of a file of a run, once the backend has made one.

import { useEffect, useState } from "preact/hooks";
import { backend } from "../../store.js";

/** Addresses that are known, so that a slider shows a picture at once. */
const known = new Map<string, string>();

/** Undefined until it is known, and where there is no such file. */
export function useRunFile(run: string, file: string | undefined): string | undefined {
  const key = `${run}\n${file}`;
  const [, setCount] = useState(0);
  useEffect(() => {
    if (file === undefined || known.has(key)) return;
    let isCurrent = true;
    backend()
      .runFileUrl(run, file)
      .then(
        (url) => {
          known.set(key, url);
          if (isCurrent) setCount((count) => count + 1);
        },
        // A picture that cannot be had is shown as missing.
        () => {},
      );
    return () => {
      isCurrent = false;
    };
  }, [run, file, key]);
  return file === undefined ? undefined : known.get(key);
}
