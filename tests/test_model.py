"""A composed model at work: every weight learns, sources are independent, the mixture is encoded once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avsep_zoo.blocks.unet import MaskUNet
from avsep_zoo.compose import build_part
from avsep_zoo.contracts import CueBatch, EncoderPlan
from avsep_zoo.errors import CompositionError
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig
from avsep_zoo.registry import registry


def mixture(batch: int) -> Tensor:
    return 0.1 * torch.randn(batch, 8191, generator=torch.Generator().manual_seed(2))


def test_describing_attributes(tiny_model: SeparationModel) -> None:
    assert tiny_model.rate == 8000
    assert tiny_model.classes == ("violin", "flute", "drum")
    assert tiny_model.device == torch.device("cpu")
    assert tiny_model.parts["objective"] == {"name": "iquery.masks", "mixture": "sum"}


def test_the_tiny_model_is_a_whole_number_of_frames(tiny_model: SeparationModel) -> None:
    spectrum = tiny_model.front_end.analyse(mixture(1))
    assert spectrum.features.shape == (1, 1, 128, 128)


def test_plans_describe_what_is_built(tiny_parts: dict[str, PartConfig], tiny_model: SeparationModel) -> None:
    """Reads, views, sites and widths: the plan, made without a module, and the module agree."""
    encoder = registry().part("encoder", "iquery.cues").plan(**tiny_parts["encoder"].config)
    assert isinstance(encoder, EncoderPlan)
    assert (encoder.reads, encoder.gives) == (tiny_model.encoder.reads, tiny_model.encoder.gives)
    assert encoder.optional == tiny_model.encoder.optional == {"frames", "label"}
    separator = MaskUNet.plan(**tiny_parts["separator"].config)
    assert separator.sites == tiny_model.separator.sites
    assert list(separator.sites) == ["bottleneck", "decoder5", "latent", "decoder3", "decoder2", "head"]
    conditioner = registry().part("conditioner", "iquery.queries")
    plan = conditioner.plan(views=encoder.gives, sites=separator.sites, **tiny_parts["conditioner"].config)
    assert (plan.wants, plan.acts_at) == (conditioner.wants, conditioner.acts_at)
    assert plan.widths == tiny_model.conditioner.widths() == {"head": 1}


def test_forward_and_backward(tiny_model: SeparationModel, tiny_cues: CueBatch) -> None:
    """Masks in [0, 1] for every source, and a gradient for every trained weight."""
    objective = build_part("objective", PartConfig.parse(tiny_model.parts["objective"]))
    tiny_model.train()
    sources = 0.1 * torch.randn(2, 3, 8191, generator=torch.Generator().manual_seed(3))
    present = {"frames": torch.tensor([[True, True, False]] * 2), "label": torch.tensor([[True, False, True]] * 2)}
    cues = CueBatch(tiny_cues.values, present)
    losses = objective.loss(tiny_model, {"sources": sources, "cues": cues})
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    without = [name for name, p in tiny_model.named_parameters() if p.grad is None]
    assert without == []
    for name, parameter in tiny_model.named_parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all(), name
    tiny_model.eval()
    estimate = tiny_model({"mixture": sources.sum(dim=1), "cues": cues})
    assert estimate.kind == "mask"
    assert estimate.values.shape == (2, 3, 128, 128)
    assert 0 <= estimate.values.min() < estimate.values.max() <= 1
    waveforms = tiny_model.waveforms({"mixture": sources.sum(dim=1), "cues": cues})
    assert waveforms.shape == (2, 3, 127 * 64)


@torch.no_grad()
@pytest.mark.parametrize("sources", [1, 2, 3])
def test_sources_and_mixtures_do_not_see_each_other(
    sources: int, tiny_model: SeparationModel, tiny_cues: CueBatch
) -> None:
    """In eval mode N sources of B mixtures give what each gives alone."""
    both = mixture(2)
    cues = CueBatch({name: value[:, :sources] for name, value in tiny_cues.values.items()})
    together = tiny_model({"mixture": both, "cues": cues}).values
    assert together.shape == (2, sources, 128, 128)
    for b in range(2):
        for n in range(sources):
            alone = CueBatch({name: v[b : b + 1, n : n + 1] for name, v in cues.values.items()})
            single = tiny_model({"mixture": both[b : b + 1], "cues": alone}).values
            torch.testing.assert_close(together[b, n], single[0, 0], atol=1e-5, rtol=1e-4)
    if sources > 1:
        assert (together[0, 0] - together[0, 1]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("sources", [1, 3])
def test_the_mixture_is_encoded_once(sources: int, tiny_model: SeparationModel, tiny_cues: CueBatch) -> None:
    """Whatever N is: every convolution of the way down and up to the head runs once, on B mixtures."""
    seen: dict[str, list[int]] = {}

    def record(name: str) -> Any:
        return lambda module, inputs, output: seen.setdefault(name, []).append(inputs[0].shape[0])

    separator = tiny_model.separator
    for name, module in separator.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(record(name))
    cues = CueBatch({name: value[:, :sources] for name, value in tiny_cues.values.items()})
    tiny_model({"mixture": mixture(2), "cues": cues})
    assert seen == {f"{way}.{k}.conv": [2] for way in ("down", "up") for k in range(5)}


def test_a_batch_of_embeddings_can_be_given(tiny_model: SeparationModel, tiny_cues: CueBatch) -> None:
    """The encoder may run once for many segments of one recording."""
    first = CueBatch({name: value[:1] for name, value in tiny_cues.values.items()})
    spectrum = tiny_model.front_end.analyse(mixture(2))
    with torch.no_grad():
        embedding = tiny_model.encoder(first).repeat(2)
        repeated = tiny_model.estimate(spectrum, embedding).values
        twice = CueBatch({name: torch.cat((value, value)) for name, value in first.values.items()})
        torch.testing.assert_close(repeated, tiny_model.estimate(spectrum, twice).values, atol=1e-5, rtol=1e-4)


def test_a_spectrum_that_the_levels_do_not_divide_is_refused(tiny_model: SeparationModel) -> None:
    """Said at the first use, whatever the front end made of its settings."""
    cues = CueBatch({"label": torch.tensor([[0, 1]])})
    with pytest.raises(CompositionError, match=r"128 x 129 points and a U-Net of 5 levels needs multiples of 32"):
        tiny_model({"mixture": torch.zeros(1, 8192), "cues": cues})
