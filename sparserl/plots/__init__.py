"""Pictures of runs: learning curves, topologies, accuracies of task sequences."""
