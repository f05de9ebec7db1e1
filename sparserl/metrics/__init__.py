"""What is measured: connectivity, cost and continual learning, as pure functions."""
