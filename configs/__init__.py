"""Presets as data: `<algo>/<Env-v5>.yaml`, found through `importlib.resources`. Nothing is computed here."""
