"""Objects of a user's modules, named as `module:name`: functions that return data, classes of methods.

Importing a module runs the code in it; who does so for a file of somebody else names it first.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from sparserl.errors import ConfigError, one_line, unknown_name

NAMED = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


def is_named_object(name: str) -> bool:
    """Whether a name is `module:name`."""
    return NAMED.fullmatch(name) is not None


def imported(name: str, what: str) -> Any:
    """The object that `module:name` names; imports the module.

    Args:
        name: The name.
        what: It is, for messages.

    Raises:
        ConfigError: If the module cannot be imported, or has no such object.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever its code does
        raise ConfigError(f"{what} {name!r}: cannot import module {module_name!r} ({one_line(str(error))})") from error
    if not hasattr(module, attribute):
        names = [one for one in vars(module) if not one.startswith("_")]
        raise ConfigError(f"{what} {name!r}: {unknown_name(f'name in {module_name}', attribute, names)}")
    return getattr(module, attribute)
