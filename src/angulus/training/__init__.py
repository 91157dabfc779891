"""Training: settings, optimiser, schedule, checkpoints, run folder, and the loop."""
