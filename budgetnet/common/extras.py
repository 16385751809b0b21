"""Optional packages: whether they are installed, and the command that installs them."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
from importlib.util import find_spec

from budgetnet.common.errors import InputError

PACKAGE = "budgetnet"


def require_extra(extra: str, *modules: str, field: str, value: object, remark: str = "") -> None:
    """Require the packages of an extra of budgetnet.

    Args:
        extra: name of the extra, such as ``export``.
        modules: modules of its packages.
        field: name of the field or option that needs them, for the error.
        value: its value.
        remark: what else to say, after the command.

    Raises:
        InputError: a module is not installed; the error says how to install it.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        rule = f"needs {', '.join(missing)}, not installed; to install: {install_command(extra)}{remark}"
        raise InputError(field, value, rule)


def install_command(extra: str) -> str:
    """Return the command that installs the packages of an extra, in the versions that budgetnet asks for."""
    requirements = importlib.metadata.requires(PACKAGE) or []
    marker = re.compile(rf";.*extra == ['\"]{re.escape(extra)}['\"]")
    packages = [text.partition(";")[0].strip() for text in requirements if marker.search(text)]
    return f"pip install {shlex.join(packages)}"
