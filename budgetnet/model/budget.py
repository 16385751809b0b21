"""Budgets: limits on a network's cost."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, SerializerFunctionWrapHandler, model_serializer, model_validator

from budgetnet.common.byte_sizes import parse_bytes
from budgetnet.common.documents import Document, parse_limit, path_as_text
from budgetnet.common.errors import InputError
from budgetnet.common.latencies import parse_latency
from budgetnet.model.cost import Cost, cost_of
from budgetnet.model.deployed.device_file import DeviceFile, load_device
from budgetnet.model.deployed.latency import Predicted
from budgetnet.model.deployed.limits import (
    DEPLOYED,
    FIELDS,
    FIELDS_OF,
    limit_text,
    limit_words,
)
from budgetnet.model.deployed.weights import Precision
from budgetnet.model.spec import ModelSpec
from budgetnet.model.verdict import NO_NEEDS, LimitVerdict, SpecVerdict


def _limit(value: object) -> int | None:
    return None if value is None else parse_limit(value, field="")


def _size(value: object) -> int | None:
    return None if value is None else parse_bytes(value, field="")


def _latency(value: object) -> float | None:
    return None if value is None else parse_latency(value, field="")


Limit = Annotated[int | None, BeforeValidator(_limit, json_schema_input_type=int | str | None)]
SizeLimit = Annotated[int | None, BeforeValidator(_size, json_schema_input_type=int | str | None)]

LatencyLimit = Annotated[float | None, BeforeValidator(_latency, json_schema_input_type=float | int | str | None)]
FileName = Annotated[str | None, BeforeValidator(path_as_text, json_schema_input_type=str | None)]

Sizing = Literal["fit", "scale", "reject"]
"""Where widths come from. ``fit``: solved for, so that a network uses up the budget. ``scale``: solved for a sampled
share of the budget. ``reject``: sampled, and networks over budget are rejected."""

LIMITS = ("params", "macs", "activations")
"""Costs that can be limited: the fields of `Cost`."""


class Budget(Document):
    """Limits on a network's cost; default: no limit.

    Numbers may be written 5e6, "5M" or 5000000; bytes 524288, "512K", "512KB" or "512KiB", where K is 1024 bytes.

    Raises:
        InputError: a limit is not a whole number of at least 1, or a precision of weights is given without their limit.
    """

    max_params: Limit = None
    """Maximum number of parameters."""
    max_macs: Limit = None
    """Maximum number of multiply-accumulates for one image."""
    max_activations: Limit = None
    """Maximum number of output elements of convolutions and the linear layer for one image."""
    max_weights: SizeLimit = None
    """Maximum bytes of the weights of the deployed network, its norms folded."""
    weight_precision: Precision = "float32"
    """Precision that the deployed network's weights are stored in."""
    max_peak_memory: SizeLimit = None
    """Maximum bytes of the deployed network's maps at once, for one image in float32, as ONNX Runtime plans them."""

    max_latency_ms: LatencyLimit = None
    """Maximum time in milliseconds that the deployed network takes on a device, as `device_file` predicts it, with the
    error that 95 % of the predictions stay within added. Text such as "2ms" is read too."""
    device_file: FileName = None
    """File of the device, from ``budgetnet device measure``."""

    @model_validator(mode="after")
    def _latency_has_a_device(self) -> Self:
        if self.max_latency_ms is not None and self.device_file is None:
            raise InputError("max_latency_ms", self.max_latency_ms, "needs the file of a device, device_file")
        if self.device_file is not None and self.max_latency_ms is None:
            raise InputError("device_file", self.device_file, "needs a limit of the latency, max_latency_ms")
        return self

    @model_validator(mode="after")
    def _precision_is_used(self) -> Self:
        if self.max_weights is None and self.weight_precision != "float32":
            raise InputError("weight_precision", self.weight_precision, "needs a limit of weights, max_weights")
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out limits of the deployed network that are not set, so that digests are those of before."""
        omitted = {f"max_{name}" for name in DEPLOYED if getattr(self, f"max_{name}") is None}
        omitted |= {field for name, field in FIELDS_OF.items() if f"max_{name}" in omitted}
        return {name: value for name, value in serialise(self).items() if name not in omitted}

    @cached_property
    def device(self) -> DeviceFile:
        """The device's file, read.

        Raises:
            InputError: the file is missing or invalid, or there is none.
        """
        if self.device_file is None:
            raise InputError("device_file", None, "must be given for a latency")
        return load_device(self.device_file)

    def predicted(self, spec: ModelSpec) -> Predicted | None:
        """Return the predicted time of a network; None without a limit of the latency.

        Raises:
            InputError: the device's file lacks an operation of the network.
        """
        if self.max_latency_ms is None:
            return None
        try:
            return self.device.latency.predict(spec)
        except InputError as error:
            raise InputError(error.field, self.device_file, error.rule) from None

    @property
    def deployed(self) -> dict[str, float]:
        """The limits of the deployed network that are set, by name."""
        # A loop, as it is asked for with every network that is looked at.
        found = {}
        for field, name in FIELDS:
            if (allowed := getattr(self, field)) is not None:
                found[name] = allowed
        return found

    @property
    def allowed(self) -> dict[str, float]:
        """All limits that are set, by name."""
        found = {name: getattr(self, f"max_{name}") for name in LIMITS}
        return {**{name: allowed for name, allowed in found.items() if allowed is not None}, **self.deployed}

    @property
    def identity(self) -> dict[str, Any]:
        """The limits as plain data, with the digest of the device's file in place of its path."""
        mapping = self.to_mapping()
        if mapping.pop("device_file", None) is not None:
            mapping["device"] = self.device.digest
        return mapping

    def in_words(self, names: Mapping[str, str] = MappingProxyType({})) -> str:
        """Return the limits for people: ``5,000,000 params, 512.0 KiB weights in int8``; empty without limits.

        Args:
            names: what limits are called, where not as in `limit_words`.
        """
        parts = {
            name: f"{limit_text(name, allowed)} {names.get(name) or limit_words(name)}"
            for name, allowed in self.allowed.items()
        }
        if "weights" in parts:
            parts["weights"] += f" in {self.weight_precision}"
        return ", ".join(parts.values())

    def only(self, limit: str) -> Budget:
        """Return the budget with one of its limits alone, which need not be set."""
        kept = [f"max_{limit}", *([FIELDS_OF[limit]] if limit in FIELDS_OF else [])]
        return Budget(**{name: getattr(self, name) for name in kept})

    def scaled(self, share: float) -> Budget:
        """Return the budget with each limit multiplied by a share; numbers that are whole stay so, and at least 1."""
        scaled = {
            f"max_{name}": allowed * share if isinstance(allowed, float) else max(1, int(allowed * share))
            for name, allowed in self.allowed.items()
        }
        return self.model_copy(update=scaled)

    def needs(self, spec: ModelSpec) -> dict[str, float]:
        """Return what a network needs of each limit of the deployed network that is set."""
        return {name: DEPLOYED[name].need(spec, self) for name in self.deployed}

    def check(self, spec: ModelSpec) -> SpecVerdict:
        """Check a network by its closed-form cost, without building it."""
        return SpecVerdict(self, spec, cost_of(spec))

    def admits(self, spec: ModelSpec) -> bool:
        """Return whether a network is within all limits."""
        return self.allows(cost_of(spec)) and self.holds(spec)

    def holds(self, spec: ModelSpec) -> bool:
        """Return whether a network is within the limits of the deployed network."""
        return all(DEPLOYED[name].need(spec, self) <= allowed for name, allowed in self.deployed.items())

    def allows(self, cost: Cost, needs: Mapping[str, float] = NO_NEEDS) -> bool:
        """Return whether a cost, and what is known of the deployed network, are within their limits."""
        within = all(
            (allowed := getattr(self, f"max_{name}")) is None or used <= allowed
            for name, used in zip(LIMITS, cost, strict=True)
        )
        if not needs:
            return within
        return within and all(need <= self.deployed.get(name, need) for name, need in needs.items())

    def share_used(self, cost: Cost, needs: Mapping[str, float] = NO_NEEDS) -> float:
        """Return the used share of the tightest limit: 1 is the limit itself; 0 without limits."""
        return max((limit.used / limit.allowed for limit in self.limits(cost, needs)), default=0.0)

    def limits(self, cost: Cost, needs: Mapping[str, float] = NO_NEEDS) -> tuple[LimitVerdict, ...]:
        """Compare a cost, and what is known of the deployed network, with every limit that is set.

        Args:
            cost: cost of a network.
            needs: what it needs of the limits of the deployed network, from `needs`.
        """
        pairs = ((name, getattr(self, f"max_{name}")) for name in LIMITS)
        found = [LimitVerdict(name, getattr(cost, name), allowed) for name, allowed in pairs if allowed is not None]
        if needs:
            found += [LimitVerdict(name, needs[name], most) for name, most in self.deployed.items() if name in needs]
        return tuple(found)
