"""Runs: what defines one, how it is made from presets, files and options, and how it is trained, resumed and opened."""
