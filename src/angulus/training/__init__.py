"""Training: settings, optimiser, schedule, saved state, and the loop."""
