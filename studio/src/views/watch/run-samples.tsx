// The pictures of a run, prompt by prompt: a strip over its steps, before against after, and the routing of each.

import { useEffect, useState } from "preact/hooks";
import type { PromptPictures, RunDetails } from "../../../../src/studio/protocol.js";
import { hasEnded } from "../../../../src/studio/run-states.js";
import { RoutingCharts } from "../../charts/routing-charts.js";
import { Wipe } from "../../parts/wipe.js";
import { useRunFile } from "./use-run-file.js";

const PLAY_MS = 700;

export function RunSamples({ details }: { details: RunDetails }) {
  const { pictures, id } = details;
  const steps = [...new Set(pictures.flatMap((each) => each.steps.map(({ step }) => step)))].sort((a, b) => a - b);
  // Undefined follows the newest.
  const [chosen, setChosen] = useState<number>();
  const [isPlaying, setPlaying] = useState(false);
  const place = chosen === undefined ? steps.length - 1 : Math.max(0, steps.indexOf(chosen));

  useEffect(() => {
    if (!isPlaying) return;
    const timer = setTimeout(() => {
      setChosen(steps[place + 1]);
      if (place + 1 >= steps.length - 1) setPlaying(false);
    }, PLAY_MS);
    return () => clearTimeout(timer);
  }, [isPlaying, place, steps]);

  if (pictures.length === 0) {
    return (
      <section class="panel" aria-labelledby="samples-title">
        <h2 id="samples-title">Samples</h2>
        <p class="muted">
          {!details.settings.validationPrompts
            ? "No pictures are drawn along this run: it was started without validation prompts."
            : hasEnded(details.state)
              ? "This run ended before its first pictures were drawn."
              : "The first pictures are still to be drawn."}
        </p>
      </section>
    );
  }
  return (
    <section class="panel stack" aria-labelledby="samples-title">
      <div class="row samples-head">
        <h2 id="samples-title">Samples</h2>
        {steps.length > 0 && (
          <>
            <label class="grow">
              <span class="visually-hidden">Step of the samples</span>
              <input
                type="range"
                min={0}
                max={steps.length - 1}
                value={place}
                aria-valuetext={`step ${steps[place]}`}
                onInput={({ currentTarget }) => {
                  const to = Number(currentTarget.value);
                  setChosen(to === steps.length - 1 ? undefined : steps[to]);
                  setPlaying(false);
                }}
              />
            </label>
            <output>step {steps[place]}</output>
            <button
              type="button"
              disabled={steps.length < 2}
              onClick={() => {
                if (!isPlaying) setChosen(steps[0]);
                setPlaying(!isPlaying);
              }}
            >
              {isPlaying ? "Stop" : "Play"}
            </button>
          </>
        )}
      </div>
      {pictures.map((each) => (
        <Prompt
          key={`${each.prompt}\n${each.without[0]}`}
          run={id}
          pictures={each}
          step={steps[place]}
          onChoose={(step) => setChosen(step === steps.at(-1) ? undefined : step)}
        />
      ))}
    </section>
  );
}

interface PromptProps {
  run: string;
  pictures: PromptPictures;
  step: number | undefined;
  onChoose(step: number): void;
}

function Prompt({ run, pictures, step, onChoose }: PromptProps) {
  const { prompt, images, without, steps } = pictures;
  const [image, setImage] = useState(0);
  // What was drawn at the step, or last before it.
  const shown = steps.filter((each) => each.step <= (step ?? 0)).at(-1) ?? steps[0];
  const trace = shown?.routes?.[image];
  return (
    <article class="prompt stack">
      <div class="row">
        <h3 class="grow">{prompt === "" ? "(empty prompt)" : prompt}</h3>
        {images > 1 && (
          <label class="row">
            Image
            <select value={image} onChange={({ currentTarget }) => setImage(Number(currentTarget.value))}>
              {Array.from({ length: images }, (_, i) => (
                <option key={i} value={i}>
                  {i + 1} of {images}
                </option>
              ))}
            </select>
          </label>
        )}
      </div>
      <div class="shown">
        <BeforeAfter
          run={run}
          before={without[image]}
          after={shown?.files[image]}
          label={shown ? `step ${shown.step}` : ""}
          prompt={prompt}
        />
        {trace ? (
          <RoutingCharts trace={trace} of={`“${prompt}”, step ${shown!.step}`} />
        ) : (
          <p class="muted">
            {shown
              ? "No routing was recorded with this picture."
              : "This is what the model draws without the adapter. The first picture with it is still to be drawn."}
          </p>
        )}
      </div>
      <ol class="strip" aria-label={`Pictures of ${prompt} over the steps`}>
        {steps.map((each) => (
          <li key={each.step}>
            <button type="button" aria-pressed={each === shown} onClick={() => onChoose(each.step)}>
              <Thumbnail run={run} file={each.files[image]} />
              step {each.step}
            </button>
          </li>
        ))}
      </ol>
    </article>
  );
}

function Thumbnail({ run, file }: { run: string; file: string | undefined }) {
  const url = useRunFile(run, file);
  return url === undefined ? <span class="missing" /> : <img src={url} alt="" />;
}

interface BeforeAfterProps {
  run: string;
  before: string | undefined;
  after: string | undefined;
  label: string;
  prompt: string;
}

function BeforeAfter({ run, before, after, label, prompt }: BeforeAfterProps) {
  const beforeUrl = useRunFile(run, before);
  const afterUrl = useRunFile(run, after);
  if (afterUrl === undefined) {
    return beforeUrl === undefined ? (
      <span class="missing large" />
    ) : (
      <figure class="alone">
        <img src={beforeUrl} alt={`${prompt}, without the adapter`} />
        <figcaption class="muted">without the adapter</figcaption>
      </figure>
    );
  }
  if (beforeUrl === undefined) return <img class="alone" src={afterUrl} alt={`${prompt}, ${label}`} />;
  return (
    <Wipe
      before={{ url: beforeUrl, label: "without the adapter" }}
      after={{ url: afterUrl, label: label }}
      title={prompt}
    />
  );
}
