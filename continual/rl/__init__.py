"""Continual reinforcement learning: one agent, a sequence of environments."""
