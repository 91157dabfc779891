"""The subcommands of `angulus`, a file a group; what they need is imported when they run."""
