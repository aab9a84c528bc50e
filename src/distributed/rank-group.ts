// What ranks of one training can do together, whatever connects them.

/** The processes of one training, of which this is one. Every rank makes the same calls in the same order. */
export interface RankGroup {
  /** 0 … size − 1; rank 0 writes files and tells. */
  readonly rank: number;
  readonly size: number;
  /** Names of the ranks' hosts, by rank. */
  readonly hosts: readonly string[];
  /** What connects them, for messages. */
  readonly connection: string;
  /**
   * Replaces the values by their sums over all ranks: the same bits on every rank, and from one run with this number of ranks
   * to the next.
   *
   * @throws {RuntimeError} If the connection fails.
   */
  sum(values: Float32Array): Promise<void>;
  /** Gives every rank what rank 0 has; the others' argument does not count. */
  broadcast(bytes?: Uint8Array): Promise<Uint8Array>;
  /** Gives every rank all ranks' texts, by rank. */
  gather(text: string): Promise<string[]>;
  /** Waits for all ranks. */
  barrier(): Promise<void>;
  /** Ends a group that is done, on every rank. */
  leave(): Promise<void>;
  /**
   * Counts a silent rank as hung much sooner from now on: this process was told to end, which is how a launcher tells the
   * others that one has died.
   */
  expectEnd(): void;
  /** Ends the processes of all ranks, this one included, within seconds. */
  abort(exitCode: number): void;
}

/** "rank 1 of 4 (host node-b)". */
export const rankName = ({ size, hosts }: Pick<RankGroup, "size" | "hosts">, rank: number): string =>
  `rank ${rank} of ${size} (host ${hosts[rank]})`;

/** Whether this is the first rank on its host. */
export const isFirstOnHost = ({ rank, hosts }: RankGroup): boolean => hosts.indexOf(hosts[rank]!) === rank;

/** How many ranks share this rank's host. */
export const ranksOnHost = ({ rank, hosts }: RankGroup): number => hosts.filter((host) => host === hosts[rank]).length;
