"""Strict YAML and JSON reading and atomic file writing.

YAML is read with a safe loader that also rejects duplicate keys. Files are written to a temporary file in the same
folder, flushed to disk and renamed, so readers never see a partial file.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import yaml

from budgetnet.common.errors import InputError, short_repr

MAX_TEXT_BYTES = 1 << 20
"""Maximum size of a specification, recipe or record file, in bytes."""


_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""libyaml's dumper if available: ten times as fast."""


def is_file_path(text: str, *, folder: Path = Path()) -> bool:
    """Return whether a text is a file path and not a name: it has a known suffix or folders, or the file exists.

    Args:
        text: a name or a path.
        folder: base folder of relative paths.
    """
    path = Path(text)
    if not text:  # As a path, it would be the current folder.
        return False
    return path.suffix.lower() in (".yaml", ".yml", ".json") or len(path.parts) > 1 or exists(folder / path)


def exists(path: Path) -> bool:
    """Return whether a file or folder exists; a path that no file can have does not."""
    try:
        return path.exists()
    except (OSError, ValueError):  # Too long, or with characters that file names cannot contain.
        return False


def resolved(path: Path) -> Path:
    """Return the absolute path without symbolic links; one that leads in a circle stays, and no such file exists."""
    # Path.resolve raises RuntimeError at a circle.
    return Path(os.path.realpath(path))


_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
"""Tag of the key ``<<``, which takes over the fields of another mapping."""


_MAX_FIELDS = 10_000
"""Most fields of one mapping: merges of merges double them."""


class _StrictLoader(yaml.SafeLoader):
    """A safe YAML loader that rejects duplicate keys instead of keeping the last one.

    Numbers such as 1:30 are text: YAML 1.1 would read it as 90, in base 60.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Take over the fields of merged mappings, as long as they are not made to multiply."""
        super().flatten_mapping(node)
        if len(node.value) > _MAX_FIELDS:
            problem = f"more than {_MAX_FIELDS:,} fields, merged ones included"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return a mapping as it is written, before anything is merged into it; its keys are text, each there once."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TEXT:
                raise yaml.constructor.ConstructorError(None, None, "keys must be text", key_node.start_mark)
            if key_node.value in seen:
                problem = f"duplicate key {short_repr(key_node.value)}"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key_node.value)
        return node


def _without_base_60(tag: str, pattern: re.Pattern[str]) -> tuple[str, re.Pattern[str]]:
    """Return how numbers are recognised, without the alternatives of the pattern that allow colons."""
    if tag not in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
        return tag, pattern
    body = re.sub(r"\s", "", pattern.pattern).removeprefix("^(?:").removesuffix(")$")
    kept = "|".join(part for part in body.split("|") if ":[0-5]" not in part)
    return tag, re.compile(f"^(?:{kept})$")


_StrictLoader.yaml_implicit_resolvers = {
    first: [_without_base_60(*resolver) for resolver in resolvers]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def require_folder(path: Path, *, field: str) -> None:
    """Check that a folder exists or can be created, and can be written to.

    Raises:
        InputError: the path is a file or lies below one, a name is too long, or permission is missing.
    """
    try:
        # A symbolic link that leads nowhere is in the way.
        nearest = next((each for each in (path, *path.absolute().parents) if each.exists() or each.is_symlink()), path)
    except OSError as error:
        raise InputError(field, str(path), f"cannot be used: {error.strerror}") from None
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(field, str(path), "must be a writable folder, or a path where one can be created")


def require_file_place(path: Path, *, field: str) -> None:
    """Check that a file can be written to a path, with its folder if that is missing.

    Raises:
        InputError: it is a folder, or one of the rules of `require_folder` is broken.
    """
    if exists(path) and path.is_dir():
        raise InputError(field, str(path), "must be a file, not a folder")
    require_folder(path.parent, field=field)


def read_mapping(path: Path, *, field: str = "file") -> dict[str, Any]:
    """Read a mapping from a YAML or JSON file.

    Args:
        path: a file, parsed as JSON if its suffix is ``.json`` and as YAML otherwise.
        field: name of the file in error messages, for example ``spec``.

    Raises:
        InputError: the file is missing, unreadable, too large, malformed, not UTF-8 text or not a mapping.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_TEXT_BYTES + 1)
    except FileNotFoundError:
        raise InputError(field, str(path), "no such file") from None
    except OSError as error:
        raise InputError(field, str(path), f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # An invalid path, such as one with a null byte.
        raise InputError(field, str(path), f"cannot be read: {error}") from None
    if len(raw) > MAX_TEXT_BYTES:
        raise InputError(field, str(path), f"must be at most {MAX_TEXT_BYTES:,} bytes")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(field, str(path), "must be UTF-8 text") from None
    value = parse_text(text, kind="JSON" if path.suffix.lower() == ".json" else "YAML", field=field, name=str(path))
    if not isinstance(value, dict):
        raise InputError(field, str(path), f"must contain a mapping of fields, not {_type_name(value)}")
    return value


def parse_text(text: str, *, kind: Literal["JSON", "YAML"], field: str, name: str) -> Any:
    """Return the value of a text in YAML or JSON, without duplicate keys.

    Args:
        text: the text.
        kind: its format.
        field: name of the input in error messages.
        name: value of the input in error messages: the path of a file, or the text itself.

    Raises:
        InputError: the text is malformed.
    """
    try:
        return _parse_json(text) if kind == "JSON" else yaml.load(text, _StrictLoader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise InputError(field, name, f"must be well-formed YAML: {_yaml_problem(error)}") from None
    except RecursionError:
        raise InputError(field, name, "is nested too deeply") from None
    except (ValueError, LookupError, AttributeError) as error:
        # The YAML loader raises these if a tag does not match its value, as in `!!bool maybe`.
        raise InputError(field, name, f"must be well-formed {kind}: {error}") from None


def _parse_json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) < len(pairs):
            names = [key for key, _ in pairs]
            duplicate = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"duplicate key {short_repr(duplicate)}")
        return mapping

    return json.loads(text, object_pairs_hook=unique)


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark else str(problem)


def _type_name(value: object) -> str:
    names: dict[type, str] = {type(None): "nothing", list: "a list", str: "text", bool: "a boolean"}
    names |= {int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


@contextmanager
def atomic_write_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path that atomically replaces ``path`` when the block ends without an error.

    Readers see the old content or the new, never a part, even after a crash.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Shortened: the longest name that the file system allows has no room for a prefix and a suffix.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".part")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        replace_atomically(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_partial_files(folder: Path) -> None:
    """Delete the temporary files that killed processes left in a folder; no other process may be writing to it."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def replace_atomically(temporary: Path, path: Path) -> None:
    """Flush a complete file to disk and rename it to ``path`` on the same file system, replacing any existing file."""
    with temporary.open("rb+") as stream:
        os.fsync(stream.fileno())
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    temporary.replace(path)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file for atomic writing, as `atomic_write_path` does, and yield a binary stream."""
    with atomic_write_path(path) as temporary, temporary.open("wb") as stream:
        yield stream


def cache_folder() -> Path | None:
    """Return the cache folder, ``$BUDGETNET_CACHE`` or ``~/.cache/budgetnet``; None without a home directory."""
    configured = os.environ.get("BUDGETNET_CACHE")
    try:
        return Path(configured).expanduser() if configured else Path.home() / ".cache" / "budgetnet"
    except RuntimeError:
        return None


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    with atomic_write(path) as stream:
        stream.write(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically.

    Raises:
        ValueError: the value contains NaN or infinities, which JSON does not support.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def to_yaml(value: Any) -> str:
    """Return a mapping as YAML text, in insertion order."""
    text: str = yaml.dump(value, Dumper=_DUMPER, sort_keys=False, default_flow_style=None, width=120)
    return text


def write_yaml(path: Path, value: Any) -> None:
    """Write a mapping as YAML in insertion order, atomically."""
    write_text(path, to_yaml(value))
