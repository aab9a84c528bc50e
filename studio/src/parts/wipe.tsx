// Two pictures of the same size on top of each other, with a line between them that is moved by pointer or keys.

import { useId, useState } from "preact/hooks";
import "./wipe.css";

interface Side {
  url: string;
  /** What is seen there. */
  label: string;
}

interface Props {
  before: Side;
  after: Side;
  /** Says what both are of. */
  title: string;
}

export function Wipe({ before, after, title }: Props) {
  const [share, setShare] = useState(50);
  const id = useId();
  return (
    <div class="wipe" style={{ "--share": `${share}%` }}>
      <div class="pictures">
        <img src={after.url} alt={`${title}, ${after.label}`} draggable={false} />
        <img class="before" src={before.url} alt={`${title}, ${before.label}`} draggable={false} />
        <span class="line" aria-hidden="true" />
        <input
          id={id}
          type="range"
          min={0}
          max={100}
          value={share}
          aria-label={`Line between ${before.label} and ${after.label} of ${title}`}
          aria-valuetext={`${share} percent ${before.label}`}
          onInput={({ currentTarget }) => setShare(Number(currentTarget.value))}
        />
      </div>
      <div class="labels muted" aria-hidden="true">
        <span>{before.label}</span>
        <span>{after.label}</span>
      </div>
    </div>
  );
}
