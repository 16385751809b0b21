"""Torch modules that a user names as ``package:callable``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from budgetnet.common.errors import InputError

if TYPE_CHECKING:
    from torch import nn

_OPTION = "--module"


def module_of(text: str) -> nn.Module:
    """Import a package and call what it defines, without arguments, for a torch module.

    Args:
        text: ``package.module:callable``; modules in the current folder are found too.

    Raises:
        InputError: the text has another form, or importing or calling fails or gives no torch module.
    """
    from torch import nn

    package, separator, name = text.partition(":")
    if not (package and separator and name):
        raise InputError(_OPTION, text, "must be PACKAGE:CALLABLE, as in torchvision.models:resnet18")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(package)
        for part in name.split("."):
            found = getattr(found, part)
        network = found if isinstance(found, nn.Module) else found()  # type: ignore[operator]
    except Exception as error:  # The code is the user's, so it may raise anything.
        reason = str(error).splitlines()[0] if str(error) else ""
        rule = f"cannot be built: {type(error).__name__}{f': {reason}' if reason else ''}"
        raise InputError(_OPTION, text, rule) from None
    if not isinstance(network, nn.Module):
        raise InputError(_OPTION, text, f"must give a torch module, not {type(network).__name__}")
    return network
