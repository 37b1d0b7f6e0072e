export { type RuleChange, ruleChanges } from "./changes.ts";
export { type ChangedRank, type VersionDifferences, versionDifferences } from "./differences.ts";
