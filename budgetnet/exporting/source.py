"""Source code of a network as one plain PyTorch file.

Text that comes from files, such as class names, enters the source as string literals only (`literal`), so that it
cannot become code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from budgetnet.data.decoding import FORMATS
from budgetnet.model.plan import BlockPlan, Plan, lower
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.records import RunRecord
from budgetnet.version import __version__


def literal(text: str) -> str:
    """Return a text as a Python string literal on one line, with the quotes that ruff prefers."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    return quote + "".join(_character(character, quote) for character in text) + quote


def _character(character: str, quote: str) -> str:
    if character in (quote, "\\"):
        return "\\" + character
    # Line ends and marks for the direction of text are not printable.
    return character if character.isprintable() else repr(character)[1:-1]


def _templates() -> Environment:
    # No HTML escaping, because the output is Python; text passes through `literal`.
    environment = Environment(  # noqa: S701
        loader=PackageLoader("budgetnet.exporting", "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters["literal"] = literal
    return environment


def python_source(record: RunRecord, *, class_names: Sequence[str]) -> str:
    """Return a Python file that defines the network of a run; it needs torch, safetensors and, for images, Pillow.

    The state dict of its class ``Network`` has the same keys and shapes as that of ``spec.build()``.

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
        # It goes into a docstring, so no other characters are allowed, even if the record breaks the rule for names.
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
        "stages": [[_block_call(spec, block) for block in stage] for stage in plan.stages],
        "stem": _stem_call(plan),
    }
    return _templates().get_template("network.py.jinja").render(context)


def _block_call(spec: ModelSpec, block: BlockPlan) -> str:
    """Return the expression that builds a block."""
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


def _stem_call(plan: Plan) -> str:
    conv = plan.stem_conv
    stride = f", stride={conv.stride}" if conv.stride > 1 else ""
    return f"conv({conv.in_channels}, {conv.out_channels}, {conv.kernel_size}{stride})"
