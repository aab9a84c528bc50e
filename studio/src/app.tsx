// The frame: navigation, connection, notices, and the view that the address names.

import { useEffect, useRef } from "preact/hooks";
import { Notices } from "./parts/notices.js";
import { SchemeButton } from "./parts/scheme-button.js";
import { ViewBoundary } from "./parts/view-boundary.js";
import { addressOf, route, VIEWS, type ViewName } from "./route.js";
import { isConnected, studio } from "./store.js";
import { DataPage } from "./views/data/data-page.js";
import { TrainPage } from "./views/train/train-page.js";
import { TryPage } from "./views/try/try-page.js";
import { WatchPage } from "./views/watch/watch-page.js";

const TITLES: Readonly<Record<ViewName, string>> = { data: "Data", train: "Train", watch: "Watch", try: "Try" };
const CONTENT: Readonly<Record<ViewName, () => preact.JSX.Element>> = {
  data: () => <DataPage />,
  train: () => <TrainPage />,
  watch: () => <WatchPage />,
  try: () => <TryPage />,
};

export function App() {
  const { view } = route.value;
  const isFirst = useRef(true);
  useEffect(() => {
    document.title = `${TITLES[view]} · fera studio`;
    // A link within the view before is gone, and would leave the keyboard without a place.
    const isLost = !isFirst.current && document.activeElement === document.body;
    if (isLost) document.getElementById("content")?.focus();
    isFirst.current = false;
  }, [view]);
  return (
    <>
      <button type="button" class="skip-link" onClick={() => document.getElementById("content")?.focus()}>
        Skip to the content
      </button>
      <header class="bar">
        <strong>fera studio</strong>
        <nav aria-label="Views">
          {VIEWS.map((name) => (
            <a key={name} href={addressOf(name)} aria-current={name === view ? "page" : undefined}>
              {TITLES[name]}
            </a>
          ))}
        </nav>
        <div class="end">
          {studio.value && <span class="muted">{describePlace()}</span>}
          <SchemeButton />
        </div>
      </header>
      {!isConnected.value && (
        <p class="banner" role="alert">
          The server does not answer. Trying again; trainings go on without this page.
        </p>
      )}
      <main id="content" tabIndex={-1}>
        {studio.value ? <ViewBoundary key={view}>{CONTENT[view]()}</ViewBoundary> : <p role="status">Connecting…</p>}
      </main>
      <Notices />
    </>
  );
}

function describePlace(): string {
  const { kind, device, version } = studio.value!;
  return kind === "server" ? `on this machine (${device}), ${version}` : `in this tab (${device}), ${version}`;
}
