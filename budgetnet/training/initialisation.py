"""The weights that a training starts from: sampled from a seed, identities, and whitening of the images' patches."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from budgetnet.common.seeding import derive_seed
from budgetnet.data.on_device import ResidentImages, normalise
from budgetnet.model.network import ResNet, build
from budgetnet.model.spec import ModelSpec

_WHITENING_IMAGES = 5_000
"""Most images whose patches a whitening convolution is computed from (Jordan 2024)."""
_WHITENING_EPSILON = 5e-4
"""Added to each variance, so that directions in which patches hardly vary are not blown up (Jordan 2024)."""


def initialise(spec: ModelSpec, seed: int, *, method: Literal["default", "dirac"] = "default") -> ResNet:
    """Build a network with weights sampled from a seed, layer by layer.

    Each layer has a random stream of its own, named by its path: two networks start alike wherever path and shape
    agree, so that variants with the same seed are comparable in pairs.

    Args:
        spec: the network.
        seed: of all weights.
        method: ``dirac`` also makes convolutions pass on what they can of their input, see `pass_input_on`.
    """
    with torch.random.fork_rng(devices=[]):
        network = build(spec)
        for path, module in network.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
                # Only the processor's generator, as the network is made there: to seed those of all devices takes long.
                torch.default_generator.manual_seed(derive_seed(seed, "initialisation", path))
                module.reset_parameters()
                if method == "dirac" and isinstance(module, nn.Conv2d) and "squeeze_excitation" not in path:
                    pass_input_on(module)
    return network


@torch.no_grad()
def pass_input_on(conv: nn.Conv2d) -> None:
    """Set the first filters of each group to pass one input channel each on, as many as the group has of both.

    The other filters keep their weights (Zagoruyko and Komodakis 2017, "DiracNets"; in this form Jordan 2024).
    """
    for filters in conv.weight.chunk(conv.groups):
        nn.init.dirac_(filters[: filters.shape[1]])


@torch.no_grad()
def whiten(network: ResNet, data: ResidentImages) -> None:
    """Set the weights of a network's whitening convolution from training images; without one nothing happens.

    Args:
        network: the network, changed in place.
        data: training images; the first 5,000 are used.
    """
    layer = network.stem.whitening
    if layer is not None:
        images = data.images[:_WHITENING_IMAGES]
        layer.weight.copy_(whitening_weights(normalise(images, data.mean, data.std), side=layer.kernel_size[0]))


def whitening_weights(images: Tensor, *, side: int) -> Tensor:
    """Compute filters whose outputs on patches are uncorrelated and of variance near one, and their negatives.

    The variance is less than one in directions in which patches hardly vary.

    The filters are the eigenvectors of the patches' second moments, the largest variance first, each divided by the
    square root of its variance (Page 2018; Jordan 2024).

    Args:
        images: float32 (n, channels, height, width), normalised.
        side: of the square patches, in pixels.

    Returns:
        float32 (2 x channels x side^2, channels, side, side), on the images' device.
    """
    channels = images.shape[1]
    patches = images.unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5)
    rows = patches.reshape(-1, channels * side**2)
    moments = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    # In double precision on the processor, a part at a time: the same on all devices, and small in memory.
    for part in torch.split(rows, 1_000_000):
        wide = part.cpu().double()
        moments += wide.T @ wide
    variances, vectors = torch.linalg.eigh(moments / len(rows))
    filters = (vectors / (variances + _WHITENING_EPSILON).sqrt()).T.flip(0)
    filters = filters.reshape(-1, channels, side, side).to(images)
    return torch.cat([filters, -filters])
