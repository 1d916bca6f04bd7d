"""What makes a run a run: its plan, its GPUs, where it stands, where it comes from, what of it is published."""
