// The server's events for all tabs of the page: a browser has six connections to a server in all, and a waiting one each would
// leave none for a seventh tab. One tab listens and tells the others; another takes over when it is closed.

import type { StudioEvent } from "../../../src/studio/protocol.js";

/** Name of the lock that the listening tab holds, and of the channel. */
const NAME = "fera-studio-events";
const RETRY_MS = 2000;

/** One tab's part. */
export class SharedEvents {
  private source: EventSource | undefined;
  private readonly channel = new BroadcastChannel(NAME);

  constructor(private readonly tell: (event: StudioEvent) => void) {
    this.channel.onmessage = ({ data }: MessageEvent<StudioEvent | "lost">) => {
      if (data === "lost") this.listenAnew();
      else tell(data);
    };
    // Pages from other machines have no locks where there is no TLS: each listens for itself.
    const { locks } = navigator as { locks?: LockManager };
    if (!locks) this.listen();
    else void this.wait(locks);
  }

  /** A request found no server; the connection may not have noticed. */
  lost(): void {
    this.tell({ kind: "connection", isConnected: false });
    if (this.source) this.listenAnew();
    else this.channel.postMessage("lost");
  }

  private async wait(locks: LockManager): Promise<void> {
    const isFirst = await locks.request(NAME, { ifAvailable: true }, (lock) => lock && this.hold());
    if (isFirst !== null) return;
    await locks.request(NAME, () => {
      // What happened between two listeners nobody heard.
      this.pass({ kind: "dataSets" });
      return this.hold();
    });
  }

  /** Listens as long as the tab is there. */
  private hold(): Promise<never> {
    this.listen();
    return new Promise(() => {});
  }

  private listen(): void {
    const source = new EventSource("api/events");
    this.source = source;
    source.onopen = () => this.pass({ kind: "connection", isConnected: true });
    source.onmessage = ({ data }) => this.pass(JSON.parse(data) as StudioEvent);
    source.onerror = () => {
      this.pass({ kind: "connection", isConnected: false });
      // It connects anew by itself, but not where the server answered with an error.
      if (source.readyState !== EventSource.CLOSED) return;
      setTimeout(() => {
        if (this.source === source) this.listen();
      }, RETRY_MS);
    };
  }

  private listenAnew(): void {
    if (!this.source) return;
    this.source.close();
    this.listen();
  }

  private pass(event: StudioEvent): void {
    this.tell(event);
    this.channel.postMessage(event);
  }
}
