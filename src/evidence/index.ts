export { type EvidenceOptions, type EvidenceProgress, listEvidence, reportEvidence, runEvidence } from "./evidence.js";
export { METHODS } from "./methods.js";
export { PART_TITLES, PARTS, type Part } from "./parts.js";
export { PRESET_NAMES, PRESETS, type PresetName } from "./presets.js";
