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
from budgetnet.model.lowering import lower
from budgetnet.model.plan import BlockPlan, Plan
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
    attentions = _Classes("SqueezeExcitation")
    shortcuts = _Classes("Shortcut")
    classes = _Classes("Block")
    stages = [
        [_block_call(block, _block_class(block, spec.downsampling, classes, shortcuts, attentions)) for block in stage]
        for stage in plan.stages
    ]
    stem_attention = plan.stem.squeeze_excitation and attentions.name(activation=plan.activation, bias=True)
    convs = [layer for layer in plan.layers() if layer.kind == "conv" and "squeeze_excitation" not in layer.path]
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
        "attentions": attentions.known,
        "shortcuts": shortcuts.known,
        "blocks": classes.known,
        "grouped": any(block["grouped"] for block in classes.known),
        "biased": any(layer.bias for layer in convs),
        "stages": stages,
        "stem_conv": _stem_call(plan),
        "stem_attention": stem_attention,
    }
    return _templates().get_template("network.py.jinja").render(context)


_LINE = 88
"""Characters of a line that formatters leave whole."""
_INDENT = 16
"""Spaces before the call of a block."""


class _Classes:
    """Classes of one purpose that a network needs, one for each set of options."""

    def __init__(self, purpose: str) -> None:
        self._purpose = purpose
        self.known: list[dict[str, Any]] = []
        """Name and options of each class."""

    def name(self, **options: Any) -> str:
        """Return the name of the class with these options."""
        for each in self.known:
            if {key: value for key, value in each.items() if key != "name"} == options:
                return str(each["name"])
        name = f"{self._purpose}{len(self.known) + 1 if self.known else ''}"
        self.known.append({"name": name, **options})
        return name


def _block_class(
    block: BlockPlan, downsampling: str, classes: _Classes, shortcuts: _Classes, attentions: _Classes
) -> str:
    """Return the name of a block's class, and note the classes that it needs."""
    settings = block.settings
    shortcut, has_attention = settings.shortcut, block.squeeze_excitation is not None
    named = shortcut.kind not in ("identity", "none")
    return classes.name(
        bottleneck=settings.bottleneck,
        expands=len(block.convs) > 2,
        preact=settings.preact,
        activation=settings.activation,
        linear=settings.linear,
        bias=settings.bias,
        dropout=settings.dropout,
        pooled=downsampling == "max-pool",
        grouped=settings.groups > 1 or settings.group_width is not None,
        shortcut=shortcut.kind,
        shortcut_name=shortcuts.name(
            kind=shortcut.kind,
            side=shortcut.kernel_size,
            norm=settings.shortcut_norm,
            bias=settings.shortcut_bias,
        )
        if named
        else None,
        attention=attentions.name(activation=settings.activation, bias=settings.squeeze_excitation.bias)
        if has_attention
        else None,
        inner_attention=block.inner_attention,
    )


def _block_call(block: BlockPlan, name: str) -> str:
    """Return the expression that builds a block."""
    convs, output = block.convs, block.output
    arguments = [str(output.in_channels), str(output.out_channels)]
    if block.settings.bottleneck:
        arguments += [f"inner={convs[-1].in_channels}", f"kernel_size={convs[-2].kernel_size}"]
    else:
        arguments.append(f"kernel_sizes=({convs[0].kernel_size}, {convs[1].kernel_size})")
    if output.stride > 1:
        arguments.append(f"stride={output.stride}")
    if (groups := max(conv.groups for conv in convs)) > 1:
        arguments.append(f"groups={groups}")
    if block.squeeze_excitation:
        arguments.append(f"gate={block.squeeze_excitation[0].out_channels}")
    call = f"{name}({', '.join(arguments)})"
    if len(call) < _LINE - _INDENT:
        return call
    inside, last = " " * (_INDENT + 4), " " * _INDENT
    return f"{name}(\n{''.join(f'{inside}{each},{chr(10)}' for each in arguments)}{last})"


def _stem_call(plan: Plan) -> str:
    conv = plan.stem.conv
    stride = f", stride={conv.stride}" if conv.stride > 1 else ""
    bias = ", bias=True" if conv.bias else ""
    return f"conv({conv.in_channels}, {conv.out_channels}, {conv.kernel_size}{stride}{bias})"
