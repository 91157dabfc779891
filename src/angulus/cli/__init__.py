"""The commands of `angulus`, one file per group; what they need is imported when they run."""
