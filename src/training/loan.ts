// Who holds the current state of values that both main memory and a device can hold.

/** Values in main memory that a device may have taken over. */
export class Loan {
  private bringBack: (() => void) | undefined;

  /**
   * Notes that a device goes on with the values.
   *
   * @param bringBack - Called once, before anything else here uses the values: it must put the current ones in place.
   */
  lend(bringBack: () => void): void {
    if (this.bringBack === bringBack) return;
    this.recall();
    this.bringBack = bringBack;
  }

  /** Makes the values in main memory the current ones. */
  recall(): void {
    const { bringBack } = this;
    this.bringBack = undefined;
    bringBack?.();
  }
}
