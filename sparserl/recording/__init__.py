"""What a run writes: its folder, checkpoints, curves, pictures, and what it says to dashboards."""
