"""Weight initialisation: seeded random weights, Dirac initialisation and patch whitening."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from budgetnet.common.seeding import derive_seed
from budgetnet.data.on_device import OnDeviceImages, normalise
from budgetnet.model.network import ResNet, build
from budgetnet.model.spec import ModelSpec

_WHITENING_IMAGES = 5_000
"""Maximum number of images from which a whitening convolution is computed (Jordan 2024)."""
_WHITENING_EPSILON = 5e-4
"""Added to each variance, so that directions of small variance are not amplified (Jordan 2024)."""


def initialise(spec: ModelSpec, seed: int, *, method: Literal["default", "dirac"] = "default") -> ResNet:
    """Build a network with weights sampled from a seed, layer by layer.

    Each layer has its own random stream, named by its path: two networks with the same seed have equal initial weights
    in all layers of equal path and shape, so that variants can be compared in pairs.

    Args:
        spec: architecture.
        seed: random seed.
        method: ``dirac`` also applies `init_dirac` to the convolutions outside squeeze-and-excitation.
    """
    with torch.random.fork_rng(devices=[]):
        network = build(spec)
        for path, module in network.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
                # Seed only the CPU generator, which samples the weights: torch.manual_seed seeds every device, slowly.
                torch.default_generator.manual_seed(derive_seed(seed, "initialisation", path))
                module.reset_parameters()
                if method == "dirac" and isinstance(module, nn.Conv2d) and "squeeze_excitation" not in path:
                    init_dirac(module)
    return network


@torch.no_grad()
def init_dirac(conv: nn.Conv2d) -> None:
    """Set the first filters of each group to the identity, min(input channels, output channels) of them.

    The other filters keep their weights (Zagoruyko and Komodakis 2017, "DiracNets"; in this form Jordan 2024).
    """
    for filters in conv.weight.chunk(conv.groups):
        nn.init.dirac_(filters[: filters.shape[1]])


@torch.no_grad()
def whiten(network: ResNet, data: OnDeviceImages) -> None:
    """Compute the weights of the network's whitening convolution from training images, if it has one.

    Args:
        network: changed in place.
        data: training images; the first 5,000 are used, or of images larger than 32x32 as many as have no more pixels.
    """
    layer = network.stem.whitening
    if layer is not None:
        height, width = data.images.shape[2:]
        # Every pixel starts a patch, and all patches are in memory.
        images = data.images[: max(1, min(_WHITENING_IMAGES, _WHITENING_IMAGES * 32 * 32 // (height * width)))]
        layer.weight.copy_(whitening_weights(normalise(images, data.mean, data.std), side=layer.kernel_size[0]))


def whitening_weights(images: Tensor, *, side: int) -> Tensor:
    """Compute filters that whiten image patches, and their negatives.

    The filters are the eigenvectors of the patches' second-moment matrix, largest variance first, each divided by the
    square root of its variance plus 5e-4 (Page 2018; Jordan 2024). Their outputs are uncorrelated, with a variance near
    one, and below one in directions of small variance.

    Args:
        images: float32 (n, channels, height, width), normalised.
        side: side of the square patches, in pixels.

    Returns:
        float32 (2 x channels x side^2, channels, side, side), on the images' device.
    """
    channels = images.shape[1]
    patches = images.unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5)
    rows = patches.reshape(-1, channels * side**2)
    moments = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    # In float64 on the CPU and in chunks, so that the result is equal on all devices and needs little memory.
    for chunk in torch.split(rows, 1_000_000):
        wide = chunk.cpu().double()
        moments += wide.T @ wide
    variances, vectors = torch.linalg.eigh(moments / len(rows))
    filters = (vectors / (variances + _WHITENING_EPSILON).sqrt()).T.flip(0)
    filters = filters.reshape(-1, channels, side, side).to(images)
    return torch.cat([filters, -filters])
