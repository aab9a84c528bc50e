// Which side holds the current values of state that both main memory and a device can have.

/** Values in main memory of which a device may have newer ones. */
export class DeviceResident {
  private fetch: (() => void) | undefined;

  /**
   * Notes that a device goes on with the values.
   *
   * @param fetch - Called once, before anything else here uses the values: it must copy the current ones into place.
   */
  moveToDevice(fetch: () => void): void {
    if (this.fetch === fetch) return;
    this.syncToHost();
    this.fetch = fetch;
  }

  /** Makes the values in main memory the current ones. */
  syncToHost(): void {
    const { fetch } = this;
    this.fetch = undefined;
    fetch?.();
  }
}
