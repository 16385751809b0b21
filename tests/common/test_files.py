"""Safe reading of YAML and JSON, and atomic writing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import many_examples

from budgetnet.common.errors import InputError
from budgetnet.common.files import MAX_TEXT_BYTES, read_mapping, write_bytes, write_json, write_text, write_yaml

BILLION_LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))

BAD_YAML = {
    "empty": ("", "must contain a mapping of fields, not nothing"),
    "comment": ("# nothing\n", "not nothing"),
    "list": ("- 1\n- 2\n", "not a list"),
    "text": ("just words", "not text"),
    "number": ("3", "not a number"),
    "yes": ("yes", "not a boolean"),
    "two documents": ("a: 1\n---\nb: 2\n", "well-formed YAML"),
    "open bracket": ("a: [1, 2\n", "well-formed YAML"),
    "tab": ("a:\n\t- 1\n", "(line 2, column 1)"),
    "duplicate key": ("a: 1\nb: 2\na: 3\n", "duplicate key 'a' (line 3, column 1)"),
    "nested duplicate key": ("a: {b: 1, b: 2}\n", "duplicate key 'b'"),
    "long duplicate key": (f"? {'k' * 500}\n: 1\n? {'k' * 500}\n: 2\n", "duplicate key"),
    "number as key": ("1: 2\n", "keys must be text"),
    "list as key": ("? [a]\n: 1\n", "keys must be text"),
    "merge of a number": ("a: {<<: 3}\n", "well-formed YAML"),
    "merges that double": (
        "a0: &a0 {b: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 60)),
        "more than 10,000 fields",
    ),
    "unknown alias": ("a: *b\n", "undefined alias"),
    "unknown tag": ("a: !thing 1\n", "could not determine a constructor"),
    "object tag": ("a: !!python/object:os.PathLike {}\n", "could not determine a constructor"),
    "wrong boolean": ("a: !!bool perhaps\n", "well-formed YAML"),
    "wrong integer": ("a: !!int ''\n", "well-formed YAML"),
    "wrong float": ("a: !!float ''\n", "well-formed YAML"),
    "wrong date": ("a: !!timestamp today\n", "well-formed YAML"),
    "invalid date": ("a: 2024-13-45\n", "well-formed YAML"),
    "wrong binary": ("a: !!binary ä\n", "well-formed YAML"),
    "long number": ("a: " + "9" * 5_000 + "\n", "well-formed YAML"),
    "control character": ("a: \x07\n", "well-formed YAML"),
    "deep": ("a: " + "[" * 100_000, "nested too deeply"),
    "deep mapping": ("{a: " * 5_000, "nested too deeply"),
}
BAD_JSON = {
    "empty": ("", "well-formed JSON"),
    "list": ("[1]", "not a list"),
    "null": ("null", "not nothing"),
    "trailing comma": ('{"a": 1,}', "well-formed JSON"),
    "yaml": ("a: 1", "well-formed JSON"),
    "duplicate key": ('{"a": 1, "a": 1}', "duplicate key 'a'"),
    "nested duplicate key": ('{"x": [{"a": 1, "a": 2}]}', "duplicate key 'a'"),
    "long number": ('{"a": ' + "9" * 5_000 + "}", "well-formed JSON"),
    "deep": ('{"a": ' + "[" * 100_000, "nested too deeply"),
}


def reading_error(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_mapping(path, field="spec")
    assert caught.value.field == "spec"
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(("text", "rule"), BAD_YAML.values(), ids=BAD_YAML)
def test_invalid_yaml_is_rejected(tmp_path: Path, text: str, rule: str) -> None:
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    error = reading_error(tmp_path / "x.yaml")
    assert rule in error.rule
    assert len(error.rule) < 250


@pytest.mark.parametrize(("text", "rule"), BAD_JSON.values(), ids=BAD_JSON)
def test_invalid_json_is_rejected(tmp_path: Path, text: str, rule: str) -> None:
    (tmp_path / "x.JSON").write_text(text, encoding="utf-8")
    assert rule in reading_error(tmp_path / "x.JSON").rule


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
@pytest.mark.parametrize("content", [b"\xff\xfe\x00a", bytes(range(256)), b"a: \xe9"], ids=["utf16", "binary", "latin"])
def test_files_that_are_not_utf8_are_rejected(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"x{suffix}").write_bytes(content)
    assert reading_error(tmp_path / f"x{suffix}").rule == "must be UTF-8 text"


def test_missing_files_folders_and_invalid_paths_are_rejected(tmp_path: Path) -> None:
    assert reading_error(tmp_path / "absent.yaml").rule == "no such file"
    assert "directory" in reading_error(tmp_path).rule
    assert "cannot be read" in reading_error(tmp_path / "a\0b").rule
    (tmp_path / "file").write_text("")
    assert "cannot be read" in reading_error(tmp_path / "file" / "below").rule


def test_maximum_file_size(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: 1\n#".ljust(MAX_TEXT_BYTES, "x"))
    assert read_mapping(path) == {"a": 1}
    path.write_text("a: 1\n#".ljust(MAX_TEXT_BYTES + 1, "x"))
    assert "at most 1,048,576 bytes" in reading_error(path).rule
    assert "at most" in reading_error(Path("/dev/zero")).rule


def test_exponentially_nested_aliases_are_read_quickly(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(BILLION_LAUGHS)
    start = time.monotonic()
    assert len(read_mapping(path)) == 30
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "tag", ["python/object/apply:os.mkdir [{}]", "python/object/new:os.mkdir [{}]", "python/name:os.mkdir"]
)
def test_yaml_tags_execute_no_code(tmp_path: Path, tag: str) -> None:
    created = tmp_path / "created"
    (tmp_path / "x.yaml").write_text(f"a: !!{tag.format(json.dumps(str(created)))}\n")
    reading_error(tmp_path / "x.yaml")
    assert not created.exists()


def test_valid_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("\ufeffa: 1\nb: [x, 1.5, null, yes]\nc: {d: é}\n", encoding="utf-8")
    assert read_mapping(tmp_path / "x.yaml") == {"a": 1, "b": ["x", 1.5, None, True], "c": {"d": "é"}}
    (tmp_path / "x.json").write_text('{"a": {"b": 1}, "c": {"b": 2}}')
    assert read_mapping(tmp_path / "x.json") == {"a": {"b": 1}, "c": {"b": 2}}


@many_examples
@given(
    st.text(st.sampled_from("ab01:-[]{},&*!|>?'\"#%@ \n\t.~=<é"), max_size=30)
    | st.lists(
        st.sampled_from(
            [
                "!!bool",
                "!!int",
                "!!set",
                "!!omap",
                "&a",
                "*a",
                "a",
                "1",
                ": ",
                "[",
                "]",
                "{",
                "}",
                "\n",
                "- ",
                "? ",
                "<<",
            ]
        )
    ).map(" ".join),
    st.sampled_from([".yaml", ".json"]),
)
def test_reading_any_text_returns_a_mapping_or_raises_a_one_line_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_text(text, encoding="utf-8")
    try:
        assert isinstance(read_mapping(path), dict)
    except InputError as error:
        assert "\n" not in str(error)


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@many_examples
@given(st.dictionaries(st.text(), plain_values, max_size=4))
def test_written_mappings_are_read_back_unchanged(
    tmp_path_factory: pytest.TempPathFactory, mapping: dict[str, Any]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    write_yaml(folder / "any.yaml", mapping)
    assert read_mapping(folder / "any.yaml") == mapping
    write_json(folder / "any.json", mapping)
    assert read_mapping(folder / "any.json") == mapping


def test_nan_is_rejected_in_json(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert read_mapping(tmp_path / "x.json") == {"a": 1}


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_the_longest_file_names_can_be_written(tmp_path: Path) -> None:
    name = "é" * 127
    write_text(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    write_text(tmp_path / "new" / "x", "text")
    assert (tmp_path / "new" / "x").stat().st_mode & 0o777 == 0o666 & ~umask
    assert os.umask(umask) == umask


def test_failure_before_the_rename_keeps_the_old_content_and_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "x"
    write_bytes(path, b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_writing_to_an_existing_folder_fails_and_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(IsADirectoryError):
        write_bytes(tmp_path / "x", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_open_readers_and_hard_links_keep_the_old_content(tmp_path: Path) -> None:
    path, link = tmp_path / "x", tmp_path / "link"
    write_bytes(path, b"old")
    os.link(path, link)
    with path.open("rb") as reader:
        write_bytes(path, b"new")
        assert reader.read() == link.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def run(code: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", f"import sys\nfrom pathlib import Path\n{code}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


WRITE_TO_FULL_DISK = """
import resource
from budgetnet.common.files import write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_bytes(Path(sys.argv[1]), b"new" * 1000)
except OSError as error:
    print(error.errno)
"""


def test_full_disk_keeps_the_old_content_and_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_bytes(path, b"old")
    with run(WRITE_TO_FULL_DISK, str(path)) as process:
        output, _ = process.communicate(timeout=60)
    assert output.strip().isdigit()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


WRITE_FOREVER = """
from budgetnet.common.files import write_bytes
contents = [bytes([letter]) * 3_000_000 for letter in b"ab"]
write_bytes(Path(sys.argv[1]), contents[0])
print("ready", flush=True)
while True:
    for content in contents:
        write_bytes(Path(sys.argv[1]), content)
"""


def test_writer_killed_at_any_time_leaves_a_complete_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for pause in (0.0, 0.01, 0.03, 0.1):
        with run(WRITE_FOREVER, str(path)) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
        assert path.read_bytes() in (b"a" * 3_000_000, b"b" * 3_000_000)


def test_merge_keys_are_read(tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    path.write_text("base: &base {a: 1, b: 2}\nother:\n  <<: *base\n  b: 3\n")
    assert read_mapping(path) == {"base": {"a": 1, "b": 2}, "other": {"a": 1, "b": 3}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("190:20:30", "190:20:30"),
        ("5_000", 5000),
        ("-3", -3),
        ("0x1F", 31),
        ("1.5e+3", 1500.0),
        (".inf", float("inf")),
    ],
)
def test_no_number_is_read_in_base_60(tmp_path: Path, text: str, value: object) -> None:
    path = tmp_path / "number.yaml"
    path.write_text(f"a: {text}\n")
    assert read_mapping(path) == {"a": value}


@pytest.mark.parametrize(("name", "text"), [("a.json", '{"a": 1}'), ("a.yaml", "a: 1\n")])
def test_a_byte_order_mark_is_skipped(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_mapping(tmp_path / name) == {"a": 1}


def test_a_merged_mapping_may_itself_override_what_it_merges(tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    path.write_text("other: &other {k: 0}\na: {x: &base {<<: *other, k: 1}}\nb: {<<: *base}\n")
    assert read_mapping(path) == {"other": {"k": 0}, "a": {"x": {"k": 1}}, "b": {"k": 1}}
