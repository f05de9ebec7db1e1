"""What is measured: connectivity and cost, as pure functions."""
