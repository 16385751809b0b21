"""Reading what people wrote and writing what must survive: safe parsing, atomic replacement.

Nothing read here can execute: YAML goes through a safe loader, which also rejects a key that stands twice.
Nothing written here can be seen half done: a file is written beside its place, flushed, and moved over it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from budgetnet.common.errors import InputError, shown

MAX_TEXT_BYTES = 1 << 20
"""The largest specification, recipe or record read, in bytes; anything larger is not one of them."""


_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""Written by libyaml where it is, in a tenth of the time."""


def names_a_file(text: str, *, folder: Path = Path()) -> bool:
    """Whether a text that may be a name or a path is a path: by its ending, its folders, or because it is there.

    Args:
        text: what was given.
        folder: where a path that is not absolute starts.
    """
    path = Path(text)
    if path.suffix.lower() in (".yaml", ".yml", ".json") or len(path.parts) > 1:
        return True
    try:
        return (folder / path).exists()
    except (OSError, ValueError):  # Too long, or of characters that no file's name has.
        return False


class _StrictLoader(yaml.SafeLoader):
    """A safe loader in which a key that stands twice is an error instead of silently the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, "keys must be text", key_node.start_mark)
            if key in seen:
                problem = f"the key {shown(key)} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_mapping(path: Path, *, field: str = "file") -> dict[str, Any]:
    """The mapping that a YAML or JSON file holds.

    Args:
        path: a ``.json`` file, or anything else, read as YAML.
        field: what to call the file in an error, for example ``spec``.

    Raises:
        InputError: the file is missing, unreadable, too large, not text, not well formed, or not a mapping.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_TEXT_BYTES + 1)
    except FileNotFoundError:
        raise InputError(field, str(path), "no such file") from None
    except OSError as error:
        raise InputError(field, str(path), f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # A path that no file can have.
        raise InputError(field, str(path), f"cannot be read: {error}") from None
    if len(raw) > MAX_TEXT_BYTES:
        raise InputError(field, str(path), f"must be at most {MAX_TEXT_BYTES:,} bytes")
    try:
        text = raw.decode("utf-8")
        # The loader is a safe one.
        value = _parse_json(text) if path.suffix.lower() == ".json" else yaml.load(text, _StrictLoader)  # noqa: S506
    except UnicodeDecodeError:
        raise InputError(field, str(path), "must be UTF-8 text") from None
    except yaml.YAMLError as error:
        raise InputError(field, str(path), f"must be well-formed YAML: {_yaml_problem(error)}") from None
    except RecursionError:
        raise InputError(field, str(path), "is nested too deeply") from None
    except (ValueError, LookupError, AttributeError) as error:
        # What the YAML loader lets through where a tag does not suit its value, such as !!bool maybe.
        kind = "JSON" if path.suffix.lower() == ".json" else "YAML"
        raise InputError(field, str(path), f"must be well-formed {kind}: {error}") from None
    if not isinstance(value, dict):
        raise InputError(field, str(path), f"must hold a mapping of fields, not {_kind(value)}")
    return value


def _parse_json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) < len(pairs):
            names = [key for key, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the key {shown(twice)} stands twice")
        return mapping

    return json.loads(text, object_pairs_hook=unique)


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark else str(problem)


def _kind(value: object) -> str:
    names: dict[type, str] = {type(None): "nothing", list: "a list", str: "text", bool: "a yes or no"}
    names |= {int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """A path to write to, whose content takes a file's place when the block ends; if that fails, the file stays.

    A reader, or a crash at any instant, finds the old content or the new, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        put_in_place(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def put_in_place(temporary: Path, path: Path) -> None:
    """Moves a file that is whole to where it is read, on the same disk, in place of any that lies there."""
    with temporary.open("rb+") as stream:
        os.fsync(stream.fileno())
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    temporary.replace(path)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """As `replacing_file`, with a stream to write to."""
    with replacing_file(path) as temporary, temporary.open("wb") as stream:
        yield stream


def cache_root() -> Path | None:
    """The folder for what can be made again: ``$BUDGETNET_CACHE``, else ``~/.cache/budgetnet``; None without a home."""
    given = os.environ.get("BUDGETNET_CACHE")
    try:
        return Path(given).expanduser() if given else Path.home() / ".cache" / "budgetnet"
    except RuntimeError:
        return None


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes atomically."""
    with replacing(path) as stream:
        stream.write(content)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, atomically; NaN and infinities are refused, as JSON has no word for them."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def yaml_text(value: Any) -> str:
    """A mapping as YAML in its own order."""
    text: str = yaml.dump(value, Dumper=_DUMPER, sort_keys=False, default_flow_style=None, width=120)
    return text


def write_yaml(path: Path, value: Any) -> None:
    """Writes a mapping as YAML in its own order, atomically."""
    write_text(path, yaml_text(value))
