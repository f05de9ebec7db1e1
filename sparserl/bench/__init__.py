"""What sparse networks cost in time and memory, measured beside dense ones on the same machine.

Like `sparserl.cli` it stands on everything else (agents, environments) and only the command line imports it.
"""
