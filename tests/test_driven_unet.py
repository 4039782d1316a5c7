"""The mask U-Net as a network that a driver calls, and drivers in compositions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from avsep_zoo.blocks.unet import MaskUNet
from avsep_zoo.compose import compose
from avsep_zoo.contracts import Bound, CueBatch, Spectrum
from avsep_zoo.cue import Cue
from avsep_zoo.errors import CompositionError
from avsep_zoo.generative.diffusion import Diffusion
from avsep_zoo.generative.flow import Flow
from avsep_zoo.generative.noise import Sampling
from avsep_zoo.generative.objective import GenerativeObjective
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig

SMALL: dict[str, Any] = {"width": 4, "levels": 5, "mask_features": 4}
DAVIS_UNET: dict[str, Any] = {
    "name": "davis.unet", "width": 4, "multipliers": [1, 2], "rows": 128, "groups": 2, "heads": 2,
    "head_channels": 4, "time_heads": 2, "time_features": 128, "patch": 4,
}  # fmt: skip
DAVIS_ENCODER: dict[str, Any] = {
    "name": "davis.resnet", "width": 4, "frames": 2, "image_size": 32, "first_frame": False, "frozen": False,
    "heads": 4, "feedforward": 16, "encoder_layers": 1, "dropout": 0.0,
}  # fmt: skip
PAIRS = [("iquery.queries", "mask_unet"), ("tiled_concat", "mask_unet"), ("tiled_concat", "davis.unet")]


class Untouched(Bound):
    """Conditions nothing and remembers what it saw."""

    def __init__(self, sources: int) -> None:
        self.sources, self.seen = sources, dict[str, Tensor]()

    def __call__(self, site: str, features: Tensor) -> Tensor:
        self.seen[site] = features
        return features


def driven_parts(parts: dict[str, PartConfig], conditioner: str, separator: str, driver: Any) -> dict[str, Any]:
    """Arguments of compose."""
    front = PartConfig("stft", {**parts["front_end"].config, "log_scale": 0.15})
    davis = separator == "davis.unet"
    return {
        "encoder": DAVIS_ENCODER if davis else parts["encoder"],
        "conditioner": parts["conditioner"] if conditioner == "iquery.queries" else conditioner,
        "separator": DAVIS_UNET if davis else {"name": "mask_unet", **SMALL, "driven": True},
        "driver": driver,
        "front_end": front,
    }


def driven(parts: dict[str, PartConfig], conditioner: str, separator: str, driver: Any) -> SeparationModel:
    torch.manual_seed(0)
    return compose(**driven_parts(parts, conditioner, separator, driver), name="driven.tiny")


def waves(*shape: int) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def spectrum(batch: int = 2) -> Spectrum:
    features = torch.rand(batch, 1, 64, 32, generator=torch.Generator().manual_seed(0))
    return Spectrum(features, features, features)


def test_an_undriven_network_is_what_it_was() -> None:
    """The setting adds nothing where it is off: the same entries, the same draws, the same masks."""
    torch.manual_seed(3)
    plain, state = MaskUNet(**SMALL), torch.get_rng_state()
    torch.manual_seed(3)
    off = MaskUNet(**SMALL, driven=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any("clock" in name for name in plain.state_dict())
    assert plain.state_dict()["down.0.conv.weight"].shape[1] == 1
    a, b = (net.eval()(spectrum(), Untouched(1)).values.detach() for net in (plain, off))
    assert torch.equal(a, b)
    assert float(a.min()) >= 0
    assert float(a.max()) <= 1


def test_a_driven_network_has_the_same_sites() -> None:
    plain, on = MaskUNet.plan(**SMALL), MaskUNet.plan(**SMALL, driven=True)
    assert plain.sites == on.sites
    assert (plain.driven, on.driven) == (False, True)


def test_features_are_those_of_each_source_at_every_site() -> None:
    inject = Untouched(3)
    network = MaskUNet(**SMALL, driven=True).eval().bind(spectrum(), inject)
    out = network(torch.zeros(6, 1, 64, 32), torch.tensor([500]))
    assert out.shape == (6, 1, 64, 32)
    assert {len(features) for features in inject.seen.values()} == {6}
    assert set(inject.seen) == {"bottleneck", "decoder5", "latent", "decoder3", "decoder2", "head"}


def test_it_reads_mixture_noise_and_time() -> None:
    """Each of them moves the answer, of its own item only."""
    torch.manual_seed(0)
    unet, noise = MaskUNet(**SMALL, driven=True).eval(), torch.randn(4, 1, 64, 32)
    network = unet.bind(spectrum(), Untouched(2))
    base = network(noise, torch.tensor([500]))
    torch.testing.assert_close(network(noise, torch.full((4,), 500.0)), base)
    moved = network(noise, torch.tensor([500, 500, 0, 500]))
    assert (moved - base).abs().amax(dim=(1, 2, 3)).gt(1e-4).tolist() == [False, False, True, False]
    noise[1] += 1
    moved = network(noise, torch.tensor([500]))
    assert (moved - base).abs().amax(dim=(1, 2, 3)).gt(1e-4).tolist() == [False, True, False, False]
    other = spectrum()
    other.features[0] += 1
    noise[1] -= 1
    moved = unet.bind(other, Untouched(2))(noise, torch.tensor([500]))
    assert (moved - base).abs().amax(dim=(1, 2, 3)).gt(1e-4).tolist() == [True, True, False, False]


def test_networks_say_what_they_are_for() -> None:
    with pytest.raises(CompositionError, match="MaskUNet needs a driver; compose it with one"):
        MaskUNet(**SMALL, driven=True)(spectrum(), Untouched(1))
    with pytest.raises(CompositionError, match="gives masks and has nothing to drive; build it with driven: true"):
        MaskUNet(**SMALL).bind(spectrum(), Untouched(1))
    odd = torch.zeros(1, 1, 48, 32)
    with pytest.raises(CompositionError, match="gives 48 x 32 points"):
        MaskUNet(**SMALL, driven=True).bind(Spectrum(odd, odd, odd), Untouched(1))


@pytest.mark.parametrize(("conditioner", "separator"), PAIRS)
@pytest.mark.parametrize("driver", ["flow", {"name": "diffusion", "steps": 3}])
def test_any_driver_drives_any_network(
    conditioner: str, separator: str, driver: Any, tiny_parts: dict[str, PartConfig], tiny_cues: CueBatch
) -> None:
    """Forward gives features, seeded; the objective's gradients reach separator and cue encoder."""
    model = driven(tiny_parts, conditioner, separator, driver)
    batch: dict[str, Any] = {"mixture": waves(2, 8191), "cues": tiny_cues}
    with torch.inference_mode():
        estimate = model(batch)
        again = model.estimate(model.front_end.analyse(batch["mixture"]), tiny_cues, sampling=Sampling(seed=1))
    assert estimate.values.shape == (2, 3, 128, 128)
    assert estimate.kind == "features"
    assert estimate.loudness == 3
    assert not torch.allclose(again.values, estimate.values)
    assert not [name for name in model.state_dict() if name.startswith("driver.")]
    model.train()
    loss = GenerativeObjective().loss(model, {"sources": waves(2, 3, 8191), "cues": tiny_cues})["loss"]
    loss.backward()
    for part in (model.separator, model.encoder):
        assert sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None) > 0


@pytest.mark.parametrize(("conditioner", "separator"), PAIRS)
def test_separating_a_recording(conditioner: str, separator: str, tiny_parts: dict[str, PartConfig]) -> None:
    """Longer than a segment, two cues; the same seed gives the same stems."""
    model = driven(tiny_parts, conditioner, separator, "flow")
    picture = np.full((40, 40, 3), 99, np.uint8)
    cues = [Cue(label="violin", frames=picture), Cue(label="flute", frames=255 - picture)]
    first, second, other = (
        model.separate(waves(12000).numpy(), cues, rate=8000, seed=seed).stems[0].waveform for seed in (0, 0, 1)
    )
    assert first.shape[-1] == 12000
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 0


def test_a_vector_conditions_masks_too(tiny_parts: dict[str, PartConfig], tiny_cues: CueBatch) -> None:
    """The tiled vector with a U-Net that is not driven."""
    model = compose(
        encoder=tiny_parts["encoder"],
        conditioner="tiled_concat",
        separator={"name": "mask_unet", **SMALL},
        front_end=tiny_parts["front_end"],
    )
    masks = model({"mixture": waves(2, 8191), "cues": tiny_cues}).values
    assert masks.shape == (2, 3, 128, 128)
    assert not torch.allclose(masks[:, 0], masks[:, 1])


def test_queries_of_each_source_are_those_of_the_mixture(tiny_model: SeparationModel, tiny_cues: CueBatch) -> None:
    """A latent and mask features repeated for each source beforehand give the same masks."""
    embedding = tiny_model.encode(tiny_cues)
    latent = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    features = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    masks = []
    for times in (1, 3):
        bound = tiny_model.conditioner.bind(embedding)
        bound("latent", latent.repeat_interleave(times, dim=0))
        masks.append(bound("head", features.repeat_interleave(times, dim=0)))
    assert masks[0].shape == (6, 1, 8, 8)
    torch.testing.assert_close(*masks, atol=1e-5, rtol=1e-5)


def test_half_precision_networks(tiny_parts: dict[str, PartConfig], tiny_cues: CueBatch) -> None:
    """Under autocast the network answers in bfloat16 and the estimate stays close to that of single precision."""
    model = driven(tiny_parts, "tiled_concat", "mask_unet", {"name": "diffusion", "steps": 3, "predicts": "clean"})
    batch = {"mixture": waves(2, 8191), "cues": tiny_cues}
    with torch.inference_mode():
        exact = model(batch).values
        with torch.autocast("cpu", torch.bfloat16):
            half = model(batch).values
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("separator", "driver", "text"),
    [
        ("davis.unet", None, r"The separator 'davis\.unet' needs a driver; give one of diffusion, flow\.$"),
        ({"driven": True}, None, r"The separator 'mask_unet' needs a driver; give one of diffusion, flow\.$"),
        (
            {},
            "flow",
            r"The driver 'flow' drives nothing: the separator 'mask_unet' reads no noise; set driven: true in it; "
            r"other separators that fit: davis\.unet\.$",
        ),
        ("davis.unet", "flwo", r"There is no driver 'flwo'; did you mean 'flow'\.$"),
        (
            "davis.unet",
            {"name": "flow", "step": 3},
            r"The driver 'flow' has no setting 'step'; did you mean 'steps'\.$",
        ),
        (
            "davis.unet",
            {"name": "flow", "solver": "ddim"},
            r"driver 'flow' cannot be built .* solver is 'ddim'; choose one of euler, midpoint, heun, ab2\.$",
        ),
        ({"drive": True}, "flow", r"separator 'mask_unet' has no setting 'drive'; did you mean 'driven'\.$"),
    ],
)
def test_drivers_that_do_not_fit(separator: Any, driver: Any, text: str, tiny_parts: dict[str, PartConfig]) -> None:
    parts = driven_parts(tiny_parts, "tiled_concat", "davis.unet", driver)
    if isinstance(separator, dict):
        parts["separator"] = {"name": "mask_unet", **SMALL, **separator}
    with pytest.raises(CompositionError, match=text):
        compose(**parts)


def test_modules_that_do_not_fit(tiny_parts: dict[str, PartConfig]) -> None:
    """What is built already says itself whether it needs a driver."""
    parts = driven_parts(tiny_parts, "tiled_concat", "mask_unet", Flow())
    with pytest.raises(CompositionError, match="The driver 'Flow' drives nothing: the separator 'MaskUNet' reads no"):
        compose(**parts | {"separator": MaskUNet(**SMALL)})
    with pytest.raises(CompositionError, match="The separator 'MaskUNet' needs a driver"):
        compose(**parts | {"separator": MaskUNet(**SMALL, driven=True), "driver": None})


def test_diffusion_needs_features_with_an_upper_end(tiny_parts: dict[str, PartConfig]) -> None:
    """Its data are clamped to 1 in each step, and plain logarithms of magnitudes are not."""
    parts = driven_parts(tiny_parts, "tiled_concat", "mask_unet", Diffusion())
    with pytest.raises(CompositionError, match=r"'Diffusion' makes data up to 1 .* set its log_scale, e\.g\. to 0\.15"):
        compose(**parts | {"front_end": tiny_parts["front_end"]})
    compose(**parts | {"front_end": tiny_parts["front_end"], "driver": "flow"})
