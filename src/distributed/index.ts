export { DEFAULT_SILENCE_SECONDS, joinMpi, type MpiOptions } from "./mpi-group.js";
export { isFirstOnHost, type RankGroup, rankName, ranksOnHost } from "./rank-group.js";
