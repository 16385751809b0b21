"""Calls of a runtime's kernels for a network: what is timed, and what a prediction adds up."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from budgetnet.model.deployed.graph import Node, graph_of
from budgetnet.model.deployed.operations import Operation, operations
from budgetnet.model.plan import Plan

RuntimeName = Literal["onnxruntime", "torch"]


class Kernel(NamedTuple):
    """What decides how long a call takes, besides its channels."""

    kind: str
    """As in the operations of ONNX Runtime, or the nodes of a graph for torch; ``depthwise`` and ``grouped`` are
    convolutions with a channel, or with `groups` channels, in each group; an activation has its own name."""
    layout: str
    """``plain``, ``blocked``, or ``plain-to-blocked`` for a convolution that reads one and writes the other."""
    kernel_size: int
    stride: int
    groups: int
    """Groups of a convolution; of kind ``grouped`` the channels of each."""
    adds: bool
    """Whether a second map is added to the output."""
    before: tuple[int, int]
    """Height and width of the input, in pixels."""
    after: tuple[int, int]
    """Height and width of the output, in pixels."""

    def __str__(self) -> str:
        side = f" {self.kernel_size}x{self.kernel_size}" if self.kernel_size > 1 or self.is_conv else ""
        stride = f" stride {self.stride}" if self.stride > 1 else ""
        groups = f" groups {self.groups}" if self.groups > 1 else ""
        added = " + sum" if self.adds else ""
        sizes = "x".join(map(str, self.before)) + " to " + "x".join(map(str, self.after))
        return f"{self.kind}{side}{stride}{groups} {self.layout}{added}, {sizes}"

    @property
    def is_conv(self) -> bool:
        """Whether it is a convolution."""
        return self.kind in ("conv", "depthwise", "grouped")

    @classmethod
    def parse(cls, text: str) -> Kernel:
        """Read a kernel from its text.

        Raises:
            ValueError: it is not a kernel's text.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} names no operation")
        side, stride, groups = (int(found[name] or 1) for name in ("side", "stride", "groups"))
        before, after = ((int(found[f"h{each}"]), int(found[f"w{each}"])) for each in (1, 2))
        return cls(found["kind"], found["layout"], side, stride, groups, found["adds"] is not None, before, after)


_TEXT = re.compile(
    r"(?P<kind>[\w-]+)(?: (?P<side>\d{1,4})x\d{1,4})?(?: stride (?P<stride>\d{1,4}))?(?: groups (?P<groups>\d{1,6}))?"
    r" (?P<layout>plain|blocked|plain-to-blocked)(?P<adds> \+ sum)?"
    r", (?P<h1>\d{1,5})x(?P<w1>\d{1,5}) to (?P<h2>\d{1,5})x(?P<w2>\d{1,5})"
)


class Call(NamedTuple):
    """One call of a kernel."""

    kernel: Kernel
    inputs: int
    """Input channels, with those that the layout pads; features of a linear layer."""
    outputs: int

    def __str__(self) -> str:
        return f"{self.kernel}, {self.inputs} to {self.outputs} channels"


def calls_of(plan: Plan, *, runtime: RuntimeName, block: int) -> list[Call]:
    """Return the calls that classify a batch of images.

    Args:
        plan: the network.
        runtime: what executes it.
        block: channels in a block of the runtime's layout.
    """
    if runtime == "onnxruntime":
        return [call_of(each, block) for each in operations(plan, block_size=block)]
    graph = graph_of(plan)
    return [call_of_node(node, graph.shape(node.inputs[0])) for node in graph.nodes]


def call_of(operation: Operation, block: int) -> Call:
    """Return the call of one operation of ONNX Runtime."""
    inputs, outputs, groups = operation.in_channels, operation.out_channels, operation.groups
    kind: str = operation.activation if operation.kind == "activation" else operation.kind
    layout = "blocked" if operation.blocked else "plain"
    if kind == "conv":
        if operation.blocked and groups == 1 and inputs < block:
            layout = "plain-to-blocked"
        elif operation.blocked:
            inputs = padded(inputs, block)
        if operation.blocked:
            outputs = padded(outputs, block)
        if groups > 1 and groups == operation.in_channels == operation.out_channels:
            kind, groups = "depthwise", 1
    elif operation.blocked and kind != "to-blocks":
        inputs, outputs = padded(inputs, block), padded(outputs, block)
    if kind in ("to-blocks", "from-blocks"):
        layout = "plain"
    before, after = (operation.in_height, operation.in_width), (operation.height, operation.width)
    if kind == "linear":
        before = after
    elif kind == "global-average":
        # The same kernel.
        kind = "squeeze"
    return Call(
        Kernel(kind, layout, operation.kernel, operation.stride, groups, operation.sum, before, after), inputs, outputs
    )


def call_of_node(node: Node, source: tuple[int, int, int]) -> Call:
    """Return the call of a node that is executed as it is.

    Args:
        node: the node.
        source: shape (channels, height, width) of its first input.
    """
    kind: str = node.activation if node.op == "activation" else node.op
    groups = node.groups
    if kind == "conv" and groups > 1 and groups == node.in_channels == node.channels:
        kind, groups = "depthwise", 1
    after = (node.height, node.width)
    before = after if kind == "linear" else source[1:]
    return Call(
        Kernel(kind, "plain", node.kernel_size, node.stride, groups, False, before, after),
        node.in_channels,
        node.channels,
    )


def by_width(call: Call) -> Call:
    """Return a call of a grouped convolution under the width of its groups; others as they are."""
    kernel = call.kernel
    if kernel.kind != "conv" or kernel.groups == 1:
        return call
    return call._replace(kernel=kernel._replace(kind="grouped", groups=call.inputs // kernel.groups))


def padded(channels: int, block: int) -> int:
    """Return channels with those that the layout pads."""
    return -(-channels // block) * block
