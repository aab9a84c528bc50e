export { joinMpi } from "./mpi-group.js";
export { DEFAULT_SILENCE_SECONDS, type MpiOptions } from "./mpi-pulse.js";
export { isFirstOnHost, type RankGroup, rankName, ranksOnHost } from "./rank-group.js";
