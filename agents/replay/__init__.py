"""Replay: the buffer, what of it a checkpoint needs, and batches."""
