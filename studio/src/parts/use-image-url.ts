// The address of an image of a data set, once the backend has made one.

import { useEffect, useState } from "preact/hooks";
import { backend } from "../store.js";

/** @returns Neither until one of them is known; `error` says why there is no address. */
export function useImageUrl(dataSet: string, image: string, side: number): { url?: string; error?: string } {
  const [result, setResult] = useState<{ url?: string; error?: string }>({});
  useEffect(() => {
    let isCurrent = true;
    setResult({});
    backend()
      .imageUrl(dataSet, image, side)
      .then(
        (url) => isCurrent && setResult({ url }),
        (error: Error) => isCurrent && setResult({ error: error.message }),
      );
    return () => {
      isCurrent = false;
    };
  }, [dataSet, image, side]);
  return result;
}
