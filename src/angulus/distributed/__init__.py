"""Several processes as one: who they are, and the few collectives that gradients pass through."""
