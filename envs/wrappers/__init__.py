"""Wrappers: what makes an environment harder, noisier or broken."""
