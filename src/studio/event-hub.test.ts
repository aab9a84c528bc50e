import { expect, it } from "vitest";
import { calmly, EventHub, eventStream } from "./event-hub.js";

it("keeps no events for a page that takes none, and all for one that does", async () => {
  const hub = new EventHub();
  const idle = eventStream(hub, new AbortController().signal);
  const reader = eventStream(hub, new AbortController().signal).body!.getReader();
  await reader.read();
  for (let done = 1; done <= 3000; done++) {
    hub.emit({ kind: "predicting", done, total: 3000 });
    expect(new TextDecoder().decode((await reader.read()).value)).toContain(`"done":${done},`);
  }
  await reader.cancel();
  expect(hub.hasListeners).toBe(false);
  // What came before its end is still there.
  const kept = (await idle.text()).split("\n\n").length;
  expect(kept).toBeLessThan(1100);
});

it("tells of a swarm of changes at once and after it, not of each", async () => {
  let told = 0;
  const change = calmly(() => told++, 50);
  for (let i = 0; i < 100; i++) change();
  expect(told).toBe(1);
  await expect.poll(() => told, { timeout: 30_000 }).toBe(2);
  await new Promise((resolve) => setTimeout(resolve, 120));
  expect(told).toBe(2);
  change();
  expect(told).toBe(3);
});
