"""Report rankings, exports, the status of a study and descriptions of functions, for people and programs."""
