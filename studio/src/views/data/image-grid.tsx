// The images of a set as cards. Only those near the window are in the page: a set may have thousands.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { DataSetImage } from "../../../../src/studio/protocol.js";
import { cardsInView, gridShape, placeOf } from "./grid-window.js";
import { ImageCard } from "./image-card.js";

/** In rem, so that cards grow with the text in them. */
const CARD = { minWidth: 13, height: 20.5, gap: 0.75 };
const SPARE_ROWS = 1;

interface Props {
  dataSet: string;
  images: readonly DataSetImage[];
  isWritable: boolean;
  onOpen(name: string): void;
  onRemove(name: string): void;
}

export function ImageGrid({ dataSet, images, isWritable, onOpen, onRemove }: Props) {
  const list = useRef<HTMLUListElement>(null);
  const [frame, setFrame] = useState({ width: 0, top: 0, viewHeight: 0, rem: 16 });
  const [focused, setFocused] = useState<string | undefined>(undefined);

  const measure = () => {
    if (!list.current) return;
    const { width, top } = list.current.getBoundingClientRect();
    const rem = Number.parseFloat(getComputedStyle(document.documentElement).fontSize);
    setFrame((known) => {
      const next = { width, top: Math.max(-top, -innerHeight), viewHeight: innerHeight, rem };
      const isSame = (Object.keys(next) as (keyof typeof next)[]).every((key) => next[key] === known[key]);
      return isSame ? known : next;
    });
  };
  useLayoutEffect(measure, [images.length]);
  useEffect(() => {
    let frameRequest = 0;
    const soon = () => {
      cancelAnimationFrame(frameRequest);
      frameRequest = requestAnimationFrame(measure);
    };
    const observer = new ResizeObserver(soon);
    observer.observe(document.body);
    addEventListener("scroll", soon, { passive: true });
    addEventListener("resize", soon);
    return () => {
      cancelAnimationFrame(frameRequest);
      observer.disconnect();
      removeEventListener("scroll", soon);
      removeEventListener("resize", soon);
    };
  }, []);

  const { width, top, viewHeight, rem } = frame;
  const size = { minWidth: CARD.minWidth * rem, height: CARD.height * rem, gap: CARD.gap * rem };
  const shape = gridShape(width, images.length, size);
  const { first, end } = cardsInView(shape, images.length, top, viewHeight, SPARE_ROWS);
  const indices = Array.from({ length: end - first }, (_, i) => first + i);
  // What has the focus stays, or the keyboard would lose its place.
  const held = focused === undefined ? -1 : images.findIndex(({ name }) => name === focused);
  if (held >= 0 && (held < first || held >= end)) {
    indices.push(held);
    indices.sort((a, b) => a - b);
  }
  return (
    <ul
      ref={list}
      class="image-grid"
      aria-label="Images"
      style={{ height: `${shape.height}px` }}
      onFocusIn={(event) => setFocused((event.target as Element).closest("li")?.dataset.name)}
      onFocusOut={() => setFocused(undefined)}
    >
      {width > 0 &&
        indices.map((index) => {
          const image = images[index]!;
          const { name } = image;
          const place = placeOf(shape, index);
          return (
            <li
              key={name}
              class="card"
              data-name={name}
              aria-setsize={images.length}
              aria-posinset={index + 1}
              style={{
                left: `${place.left}px`,
                top: `${place.top}px`,
                width: `${shape.cardWidth}px`,
                height: `${size.height}px`,
              }}
            >
              <ImageCard
                dataSet={dataSet}
                image={image}
                isWritable={isWritable}
                onOpen={() => onOpen(name)}
                onRemove={() => onRemove(name)}
              />
            </li>
          );
        })}
    </ul>
  );
}
