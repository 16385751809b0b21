"""A network written out as one plain PyTorch file.

Texts that come from files, such as the names of classes, enter it as string literals alone, see `literal`; everything
else in it are numbers and words of our own. So no text can become code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from budgetnet.data.single_image import FORMATS
from budgetnet.model.plan import BlockPlan, Plan, lower
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.records import RunRecord
from budgetnet.version import __version__


def literal(text: str) -> str:
    """A text as a string literal on one line, with the quotes that ruff prefers; nothing in it can end it early."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    return quote + "".join(_character(character, quote) for character in text) + quote


def _character(character: str, quote: str) -> str:
    if character in (quote, "\\"):
        return "\\" + character
    # Among what is not printable are line ends, and marks that turn the direction of what is shown.
    return character if character.isprintable() else repr(character)[1:-1]


def _templates() -> Environment:
    # Nothing is escaped for HTML, as Python is written; texts go through `literal`.
    environment = Environment(  # noqa: S701
        loader=PackageLoader("budgetnet.export", "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters["literal"] = literal
    return environment


def python_source(record: RunRecord, *, class_names: Sequence[str]) -> str:
    """The network of a run as a Python file that needs torch and safetensors, and Pillow to read images.

    Its module `Network` has the state dict of the network that budgetnet builds.

    Args:
        record: the run.
        class_names: name of each class.
    """
    identity, result = record.identity, record.result
    spec, plan = identity.spec, lower(identity.spec)
    blocks = [block for stage in plan.stages for block in stage]
    shortcuts = {block.shortcut for block in blocks}
    context: dict[str, Any] = {
        "version": __version__,
        # A name has letters, digits and a few marks by its rule; it stands in a docstring, so here that is seen to.
        "label": re.sub(r"[^\w.+-]", "_", spec.label),
        "params": result.params,
        "macs": result.macs,
        "result": result,
        "digest": identity.digest,
        "data": identity.data,
        "class_names": class_names,
        "formats": FORMATS,
        "mode": "L" if spec.input_shape[0] == 1 else "RGB",
        "spec": spec,
        "plan": plan,
        "activation": f"functional.{spec.activation}",
        "sums": spec.shortcut.kind != "none",
        "shortcut": next(iter(shortcuts - {"identity", "none"}), None),
        "gates": spec.squeeze_excitation_ratio is not None,
        "stages": [[_call(spec, block) for block in stage] for stage in plan.stages],
        "stem": _stem(plan),
    }
    return _templates().get_template("network.py.jinja").render(context)


def _call(spec: ModelSpec, block: BlockPlan) -> str:
    """How a block is made."""
    convs, output = block.convs, block.output
    arguments = [str(output.in_channels), str(output.out_channels)]
    if spec.block == "bottleneck":
        arguments += [f"inner={convs[0].out_channels}", f"kernel_size={convs[1].kernel_size}"]
    else:
        arguments.append(f"kernel_sizes=({convs[0].kernel_size}, {convs[1].kernel_size})")
    if output.stride > 1:
        arguments.append(f"stride={output.stride}")
    if block.squeeze_excitation:
        arguments.append(f"gate={block.squeeze_excitation[0].out_channels}")
    return f"Block({', '.join(arguments)})"


def _stem(plan: Plan) -> str:
    conv = plan.stem_conv
    stride = f", stride={conv.stride}" if conv.stride > 1 else ""
    return f"conv({conv.in_channels}, {conv.out_channels}, {conv.kernel_size}{stride})"
