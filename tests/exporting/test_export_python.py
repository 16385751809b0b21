"""Networks exported as Python: formatted, correct, and safe against text injected from files."""

from __future__ import annotations

import ast
import runpy
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from export_support import SPECS, create_run, expected_logits, images_of, odd_sized_dataset, run_module, spec_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from strategies import many_examples, specs
from support import TINY

from budgetnet.common.errors import BudgetnetError
from budgetnet.data import DataSet
from budgetnet.exporting import verification
from budgetnet.exporting.exporting import export
from budgetnet.exporting.source import literal, python_source
from budgetnet.model.spec import ModelSpec

HOSTILE = [
    '"""\nimport os\nos.system("touch taken")\n"""',
    "'''",
    "it's 'so', \" or not",
    '"',
    "\\",
    '\\"; import os #',
    "{{ 7 * 7 }}{% raw %}",
    "a\r\u2028b\x00\x1b[2J",
    "\u202eright to left",
    "\udc80 no text",
    "żółw 🐢",
]
"""Class names that a folder cannot have but that an edited run record may hold."""


@pytest.fixture(scope="module")
def odd() -> DataSet:
    return odd_sized_dataset()


@pytest.mark.parametrize("name", SPECS)
def test_python_export_gives_the_same_logits(odd: DataSet, tmp_path: Path, name: str) -> None:
    record = create_run(spec_of(name), odd, tmp_path)
    (tmp_path / "net.py").write_text(python_source(record, class_names=odd.class_names), encoding="utf-8")
    module = runpy.run_path(str(tmp_path / "net.py"))
    network, images = module["load"](record.folder / "best.safetensors"), images_of(odd, 7)
    assert not network.training
    with torch.no_grad():
        torch.testing.assert_close(network(images).double(), expected_logits(record, images), rtol=0, atol=1e-4)
    ours = load_file(record.folder / "best.safetensors")
    assert list(network.state_dict()) == list(record.identity.spec.build().state_dict())
    assert network.state_dict().keys() == ours.keys()
    assert sum(each.numel() for each in network.parameters()) == record.result.params


def test_python_export_of_random_specs_builds_and_passes_ruff(tmp_path: Path, digits: DataSet) -> None:
    record = create_run(TINY, digits, tmp_path)
    written: list[Path] = []

    @settings(many_examples, max_examples=120)
    @given(specs())
    def write(spec: ModelSpec) -> None:
        identity = record.identity.model_copy(update={"spec": spec})
        names = [f"class {number}" for number in range(spec.num_classes)]
        source = python_source(record._replace(identity=identity), class_names=names)
        path = tmp_path / f"net{len(written)}.py"
        path.write_text(source, encoding="utf-8")
        written.append(path)
        if len(written) % 10 == 0:
            theirs, ours = runpy.run_path(str(path))["Network"]().state_dict(), spec.build().state_dict()
            assert {name: each.shape for name, each in theirs.items()} == {
                name: each.shape for name, each in ours.items()
            }

    write()
    assert len(written) > 100
    for command in (["check"], ["format", "--check"], ["format", "--check", "--line-length", "120"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--isolated", "--no-cache", str(tmp_path)]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:]


def strings_blanked(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(tree)


def test_text_from_files_cannot_become_code(tmp_path: Path, digits: DataSet) -> None:
    harmless = create_run(TINY, digits, tmp_path)
    data = harmless.identity.data.model_copy(update={"provenance": HOSTILE[0], "fingerprint": HOSTILE[1]})
    # model_copy skips the validation of the name.
    spec = harmless.identity.spec.model_copy(update={"name": HOSTILE[0]})
    hostile = harmless._replace(identity=harmless.identity.model_copy(update={"data": data, "spec": spec}))
    source = python_source(hostile, class_names=HOSTILE)
    assert strings_blanked(source) == strings_blanked(python_source(harmless, class_names=["x"] * len(HOSTILE)))
    path = tmp_path / "net.py"
    path.write_text(source, encoding="utf-8")
    module = runpy.run_path(str(path))
    assert module["CLASS_NAMES"] == HOSTILE
    assert (module["DATA"], module["DATA_FINGERPRINT"]) == (HOSTILE[0], HOSTILE[1])
    imported = {
        name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
    }
    assert imported == {"__future__", "sys", "pathlib", "torch", "torch.nn", "safetensors.torch", "PIL"}
    called = {
        node.func.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"eval", "exec", "compile", "__import__", "open"}
    for command in ("check", "format"):
        ruff = [sys.executable, "-m", "ruff", command, "--isolated", "--no-cache", str(path)]
        done = subprocess.run([*ruff, *(["--check"] if command == "format" else [])], capture_output=True, check=False)
        assert done.returncode == 0, done.stdout


@many_examples
@given(st.text(st.one_of(st.sampled_from("'\"\\\n{}"), st.characters()), max_size=12))
def test_literal_is_one_line_that_evaluates_to_the_text(text: str) -> None:
    written = literal(text)
    assert ast.literal_eval(written) == text
    assert len(written.splitlines()) == 1
    assert written.isprintable()


def test_python_export_runs_without_budgetnet(odd: DataSet, tmp_path: Path) -> None:
    record = create_run(spec_of("bottleneck"), odd, tmp_path)
    done = export(record.folder, format="python", to=tmp_path / "net.py", load=lambda _: odd)
    assert [path.name for path in done.paths] == ["net.py", "net.weights.safetensors"]
    images = images_of(odd, 7)
    torch.testing.assert_close(
        run_module(done.paths[0], images).double(), expected_logits(record, images), rtol=0, atol=1e-4
    )
    # A file that imports budgetnet fails in the same process.
    importing = tmp_path / "importing.py"
    importing.write_text("def load(path):\n    import budgetnet\n    return budgetnet\n", encoding="utf-8")
    with pytest.raises(
        BudgetnetError, match="does not run without budgetnet: ModuleNotFoundError: import of budgetnet"
    ):
        verification.predict_in_isolation(importing, done.paths[1], [images])


def test_python_export_reports_unreadable_images_and_continues(odd: DataSet, tmp_path: Path) -> None:
    record = create_run(spec_of("basic"), odd, tmp_path)
    done = export(record.folder, format="python", to=tmp_path / "net.py", load=lambda _: odd)
    Image.new("RGB", (20, 20)).save(tmp_path / "good.png")
    (tmp_path / "empty.png").touch()
    Image.effect_noise((400, 400), 50).save(tmp_path / "broken.png")
    content = (tmp_path / "broken.png").read_bytes()
    # A chunk of pixels, and then no chunk: Pillow raises a SyntaxError.
    first = content.index(b"IDAT")
    (length,) = struct.unpack(">I", content[first - 4 : first])
    (tmp_path / "broken.png").write_bytes(content[: first + length + 8] + bytes(40))
    module = [sys.executable, "-I", str(done.paths[0])]
    said = subprocess.run(
        [*module, "nowhere.png", "empty.png", "broken.png", "good.png"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2
    assert [line.partition(": ")[0] for line in said.stderr.splitlines()] == ["nowhere.png", "empty.png", "broken.png"]
    assert said.stdout.startswith("good.png: ") and said.stdout.count("%") == 3
    nothing = subprocess.run(module, capture_output=True, text=True, check=False)
    assert (nothing.returncode, nothing.stderr) == (2, "usage: python FILE IMAGE...\n")


def test_python_export_keeps_a_safetensors_file_of_the_same_name(odd: DataSet, tmp_path: Path) -> None:
    record = create_run(spec_of("basic"), odd, tmp_path)
    (weights,) = export(record.folder, format="safetensors", to=tmp_path / "net.safetensors", load=lambda _: odd).paths
    before = weights.read_bytes()
    other = create_run(spec_of("preact"), odd, tmp_path)
    export(other.folder, format="python", to=tmp_path / "net.py", load=lambda _: odd)
    assert weights.read_bytes() == before
