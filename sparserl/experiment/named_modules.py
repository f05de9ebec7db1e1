"""Modules that the config of a run, or of a sequence, has imported: an environment's id `module:Name` runs their code.

Such files come from other people. Each module is named before it is imported, with the file that it would be, and none
is taken from within the folder of the run.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from sparserl.errors import ConfigError, one_line


def name_modules(names: Iterable[str], folder: Path | None, what: str = "environment") -> None:
    """Says on standard error which modules environments will import first; to be called before the first is made.

    From then on nothing at all is imported from the folder, even where the process runs in it.

    Args:
        names: Ids of environments, or `module:name` of something else.
        folder: Of the run that they belong to; None if they belong to none.
        what: They are names of.

    Raises:
        ConfigError: If a module would come from the folder.
    """
    modules = {name.rpartition(":")[0]: name for name in names if ":" in name}
    for module, name in modules.items():
        paths = _paths(module)
        if folder is not None:
            inside = next((path for path in paths if _is_within(path, folder)), None)
            if inside is not None:
                raise ConfigError(
                    f"{what} {name!r} would import {inside}, which lies in the run folder; move it elsewhere "
                    "if you trust it"
                )
        where = str(paths[0]) if paths else "not found"
        if module not in sys.modules:
            said = f"sparserl: {what} {name!r} imports the module {module} ({where})"
            print(one_line(said), file=sys.stderr, flush=True)
    if modules and folder is not None:
        sys.path[:] = [entry for entry in sys.path if not _is_within(Path(entry), folder)]


def run_of(config: Path) -> Path | None:
    """The run whose config a file is; None if it is any other file."""
    return config.parent if (config.parent / "checkpoints").is_dir() else None


def _paths(module: str) -> list[Path]:
    """Files and folders that importing a module by its dotted name would look into; nothing is imported."""
    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top) if top.isidentifier() else None
    except (ImportError, ValueError):  # one that stands for itself, such as __main__
        return []
    if spec is None:
        return []
    origin = [spec.origin] if spec.has_location and spec.origin else []
    return [Path(path) for path in [*origin, *(spec.submodule_search_locations or [])]]


def _is_within(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
