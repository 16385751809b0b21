"""File formats of exported networks."""

from __future__ import annotations

from typing import Literal, get_args

Format = Literal["safetensors", "onnx", "torch-export", "python"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: dict[Format, str] = {"safetensors": ".safetensors", "onnx": ".onnx", "torch-export": ".pt2", "python": ".py"}
