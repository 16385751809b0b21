"""mixup, CutMix and cutout against torchvision and loops over images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from device_support import NoHostSynchronisation
from scipy import stats
from torchvision.transforms import v2

from budgetnet.data.augment.cutout import cut_out, sample_cutout
from budgetnet.data.augment.mixing import MixingKind, SampledMixing, mix, sample_mixing

KINDS: tuple[MixingKind, ...] = ("mixup", "cutmix")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs_of(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(count, channels, height, width, generator=seeded(0))


def sample(steps: int, kind: MixingKind, *, alpha: float = 1.0, seed: int = 0) -> SampledMixing:
    return sample_mixing(steps, kind=kind, alpha=alpha, size=(12, 17), seed=seed, device="cpu")


@pytest.mark.parametrize("count", [1, 2, 7])
def test_mixup_equals_torchvision(count: int) -> None:
    inputs = inputs_of(count, 3, 12, 17)
    before = inputs.clone()
    sampled = sample(40, "mixup")
    transform = v2.MixUp(num_classes=5)
    for share, box in zip(sampled.shares, sampled.boxes, strict=True):
        expected = transform.transform(inputs, {"lam": float(share), "labels": None, "batch_size": count})
        torch.testing.assert_close(mix(inputs, kind="mixup", share=share, box=box), expected, rtol=0, atol=1e-6)
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_cutmix_equals_torchvision(count: int) -> None:
    inputs = inputs_of(count, 3, 12, 17)
    before = inputs.clone()
    sampled = sample(40, "cutmix")
    transform = v2.CutMix(num_classes=5)
    for share, box in zip(sampled.shares, sampled.boxes, strict=True):
        expected = transform.transform(inputs, {"box": box.tolist(), "labels": None, "batch_size": count})
        assert torch.equal(mix(inputs, kind="cutmix", share=share, box=box), expected)
    assert torch.equal(inputs, before)


def test_sampled_boxes_and_weights_equal_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    sampled = sample(300, "cutmix", seed=5)
    # torchvision gets the same random numbers in the order in which it samples them.
    generator = np.random.default_rng(5)
    shares = generator.beta(1.0, 1.0, 300)
    columns, rows = generator.integers(17, size=300), generator.integers(12, size=300)
    transform = v2.CutMix(num_classes=5)
    inputs = inputs_of(1, 1, 12, 17)
    for step in range(300):
        monkeypatch.setattr(transform._dist, "sample", lambda _, step=step: shares[step])
        positions = iter([torch.tensor([columns[step]]), torch.tensor([rows[step]])])
        monkeypatch.setattr(torch, "randint", lambda *_, positions=positions, **__: next(positions))
        expected = transform.make_params([inputs])
        assert sampled.boxes[step].tolist() == list(expected["box"])
        assert float(sampled.shares[step]) == np.float32(expected["lam_adjusted"])


# Below 0.4, so many weights are rounded to 1 in float32 that the test would fail.
@pytest.mark.parametrize("alpha", [0.4, 1.0, 4.0])
def test_mixup_weights_follow_the_beta_distribution(alpha: float) -> None:
    shares = sample(20_000, "mixup", alpha=alpha).shares
    assert shares.dtype == torch.float32
    assert stats.kstest(shares.double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > 0.001


def test_cutmix_weight_is_the_area_outside_the_box() -> None:
    sampled = sample(3_000, "cutmix", alpha=0.5)
    assert sampled.boxes.dtype == torch.int64
    left, top, right, bottom = sampled.boxes.unbind(1)
    assert bool((left >= 0).all() and (left <= right).all() and (right <= 17).all())
    assert bool((top >= 0).all() and (top <= bottom).all() and (bottom <= 12).all())
    inputs = torch.stack([torch.zeros(1, 12, 17), torch.ones(1, 12, 17)])
    for share, box in zip(sampled.shares[:200], sampled.boxes[:200], strict=True):
        remaining = mix(inputs, kind="cutmix", share=share, box=box)[1].mean()
        assert float(share) == pytest.approx(float(remaining), abs=1e-6)


def test_mixup_has_no_boxes() -> None:
    assert not sample(10, "mixup").boxes.any()


@pytest.mark.parametrize("kind", KINDS)
def test_mixing_depends_on_the_seed_only(kind: MixingKind) -> None:
    first, same, other = sample(50, kind, seed=1), sample(50, kind, seed=1), sample(50, kind, seed=2)
    assert torch.equal(first.shares, same.shares)
    assert torch.equal(first.boxes, same.boxes)
    assert not torch.equal(first.shares, other.shares)


@pytest.mark.parametrize("kind", KINDS)
def test_mixing_keeps_memory_format_and_type(kind: MixingKind) -> None:
    sampled = sample(1, kind, seed=3)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        inputs = inputs_of(6, 3, 12, 17).to(dtype)
        plain = mix(inputs, kind=kind, share=sampled.shares[0], box=sampled.boxes[0])
        channels_last = inputs.contiguous(memory_format=torch.channels_last)
        result = mix(channels_last, kind=kind, share=sampled.shares[0], box=sampled.boxes[0])
        assert torch.equal(result, plain)
        assert result.dtype == dtype
        assert plain.is_contiguous()
        assert result.is_contiguous(memory_format=torch.channels_last)


def test_mixup_in_half_precision_rounds_only_the_result() -> None:
    inputs = inputs_of(6, 3, 12, 17).to(torch.bfloat16)
    share, box = torch.tensor(0.337), torch.zeros(4, dtype=torch.int64)
    expected = mix(inputs.float(), kind="mixup", share=share, box=box).to(torch.bfloat16)
    assert torch.equal(mix(inputs, kind="mixup", share=share, box=box), expected)


@pytest.mark.parametrize("length", [1, 4, 5, 30])
def test_cutout_equals_a_loop_over_images(length: int) -> None:
    inputs = inputs_of(60, 3, 12, 17)
    before = inputs.clone()
    centres = sample_cutout(60, size=(12, 17), device="cpu", generator=seeded(0))
    expected = inputs.clone()
    for image, (row, column) in zip(expected, centres.tolist(), strict=True):
        for across in range(length):
            for down in range(length):
                y, x = row - length // 2 + down, column - length // 2 + across
                if 0 <= y < 12 and 0 <= x < 17:
                    image[:, y, x] = 0
    for layout in (torch.contiguous_format, torch.channels_last):
        arranged = inputs.contiguous(memory_format=layout)
        result = cut_out(arranged, rows=centres[:, 0], columns=centres[:, 1], length=length)
        assert torch.equal(result, expected)
        assert result.is_contiguous(memory_format=layout)
    assert torch.equal(inputs, before)


def test_cutout_centres_are_uniform_over_all_pixels() -> None:
    centres = sample_cutout(40_000, size=(5, 7), device="cpu", generator=seeded(0))
    assert centres.shape == (40_000, 2)
    assert centres.dtype == torch.int64
    counts = torch.bincount(centres[:, 0] * 7 + centres[:, 1], minlength=35)
    assert stats.chisquare(counts.numpy()).pvalue > 0.001
    assert torch.equal(centres, sample_cutout(40_000, size=(5, 7), device="cpu", generator=seeded(0)))
    assert not torch.equal(centres, sample_cutout(40_000, size=(5, 7), device="cpu", generator=seeded(1)))


def test_mixing_and_cutout_need_no_host_synchronisation() -> None:
    inputs = inputs_of(6, 3, 12, 17)
    centres = sample_cutout(6, size=(12, 17), device="cpu", generator=seeded(0))
    for kind in KINDS:
        sampled = sample(1, kind)
        # Tensors on the meta device have no values, so reading one would fail.
        for device in ("cpu", "meta"):
            share, box = sampled.shares[0].to(device), sampled.boxes[0].to(device)
            arranged, (rows, columns) = inputs.to(device), centres.to(device).unbind(1)
            with NoHostSynchronisation():  # type: ignore[no-untyped-call]
                mixed = mix(arranged, kind=kind, share=share, box=box)
                cut_out(mixed, rows=rows, columns=columns, length=4)


@pytest.mark.gpu
def test_captured_graphs_equal_the_cpu() -> None:
    inputs = inputs_of(16, 3, 12, 17).contiguous(memory_format=torch.channels_last)
    centres = sample_cutout(16, size=(12, 17), device="cpu", generator=seeded(0))
    on_device, centres_on_device = inputs.cuda(), centres.cuda()
    for kind in KINDS:
        sampled = sample(2, kind)
        share, box = sampled.shares[0].cuda(), sampled.boxes[0].cuda()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            mixed = mix(on_device, kind=kind, share=share, box=box)
            result = cut_out(mixed, rows=centres_on_device[:, 0], columns=centres_on_device[:, 1], length=4)
        share.copy_(sampled.shares[1])
        box.copy_(sampled.boxes[1])
        graph.replay()
        expected = mix(inputs, kind=kind, share=sampled.shares[1], box=sampled.boxes[1])
        expected = cut_out(expected, rows=centres[:, 0], columns=centres[:, 1], length=4)
        torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=1e-6)
