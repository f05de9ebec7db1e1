"""Sequences of tasks on environments, and where their tasks come from."""
