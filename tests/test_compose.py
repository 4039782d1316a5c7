"""Parts put together: what fits runs, what does not is said before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

import avsep_zoo
from avsep_zoo.compose import build_part, compose, compose_recipe
from avsep_zoo.contracts import (
    Bound,
    Conditioner,
    ConditionerPlan,
    CueBatch,
    CueEncoder,
    Embedding,
    EncoderPlan,
    Estimate,
    Separator,
    SeparatorPlan,
    Site,
    Spectrum,
)
from avsep_zoo.errors import CompositionError
from avsep_zoo.front_end import StftFrontEnd
from avsep_zoo.plugins import register_plugin
from avsep_zoo.recipe import PartConfig
from avsep_zoo.registry import registry

BUILT: list[str] = []


class MapEncoder(CueEncoder):
    """Gives a map and nothing else."""

    def __init__(self, *, width: int = 4) -> None:
        super().__init__()
        BUILT.append("encoder")
        plan = self.plan(width=width)
        self.reads, self.optional, self.gives = plan.reads, plan.optional, plan.gives

    @classmethod
    def plan(cls, *, width: int = 4) -> EncoderPlan:
        return EncoderPlan(frozenset({"frames"}), {"map": width})

    def prepare(self, cues: Sequence[Any], *, video: Any, time: float, rng: Any = None) -> CueBatch:
        return CueBatch({"frames": torch.zeros(1, len(cues), 4, 2, 2)})

    def forward(self, cues: CueBatch) -> Embedding:
        return Embedding(map=cues.values["frames"])


class TopSeparator(Separator):
    """Has a head and nothing else; refuses some widths in ways of its own."""

    def __init__(self, *, width: int = 4, widths: Mapping[str, int] | None = None, **extra: Any) -> None:
        super().__init__()
        BUILT.append("separator")
        if width == 6:
            raise RuntimeError("six is not possible")
        self.sites = self.plan(width=width).sites

    @classmethod
    def plan(cls, *, width: int = 4, **extra: Any) -> SeparatorPlan:
        return SeparatorPlan({"head": Site("head", {4: 4, 6: 6}[width])})

    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        logits = inject("head", spectrum.features.expand(-1, 4, -1, -1))
        return Estimate(torch.sigmoid(rearrange(logits, "(b n) 1 f t -> b n f t", n=inject.sources)))


class Gate(Conditioner):
    """Scales the head's features by the cue vector."""

    wants = frozenset({"vector"})
    acts_at = frozenset({"head"})

    def __init__(self, *, views: Mapping[str, int], sites: Mapping[str, Site], depth: int) -> None:
        super().__init__()
        BUILT.append("conditioner")
        self.linear = nn.Linear(views["vector"], 1)

    @classmethod
    def plan(cls, *, views: Mapping[str, int], sites: Mapping[str, Site], **config: Any) -> ConditionerPlan:
        return ConditionerPlan(cls.wants, cls.acts_at, {"head": 1})

    def widths(self) -> Mapping[str, int]:
        return {"head": 1}

    def bind(self, embedding: Embedding) -> Bound:
        return _BoundGate(self, embedding)


class _BoundGate(Bound):
    def __init__(self, gate: Gate, embedding: Embedding) -> None:
        self.sources, self.gate, self.embedding = embedding.sources, gate, embedding

    def __call__(self, site: str, features: Tensor) -> Tensor:
        if site != "head":
            return features
        assert self.embedding.vector is not None
        scale = self.gate.linear(self.embedding.vector)  # (B, N, 1)
        mixed = features.mean(dim=1, keepdim=True) * scale[..., None]  # (B, N, F, T)
        return mixed.flatten(0, 1)[:, None]


class Toys:
    """A plugin by hand with the parts above."""

    @avsep_zoo.hookimpl
    def avsep_register(self, register: Any) -> None:
        register.encoder("toy.map", f"{__name__}:MapEncoder")
        register.separator("toy.top", f"{__name__}:TopSeparator")
        register.conditioner("toy.gate", f"{__name__}:Gate")
        register.separator("toy.broken", "no_such_package:Net")


@pytest.fixture
def toys() -> Iterator[None]:
    registry.cache_clear()
    register_plugin(Toys(), "toys")
    BUILT.clear()
    yield
    registry.cache_clear()


def slots(parts: Mapping[str, PartConfig], **changes: Any) -> dict[str, Any]:
    """Arguments of compose: the parts of the tiny iQuery, some of them changed."""
    return {slot: part for slot, part in parts.items() if slot != "objective"} | changes


def settings(part: PartConfig, **changes: Any) -> PartConfig:
    return PartConfig(part.name, {**part.config, **changes})


def mixture(batch: int) -> Tensor:
    return 0.1 * torch.randn(batch, 8191, generator=torch.Generator().manual_seed(2))


def test_names_mappings_and_modules_build_the_same_model(tiny_parts: dict[str, PartConfig]) -> None:
    """Also when every part is given in another way; what was given by name can be built again."""
    torch.manual_seed(0)
    first = compose(**slots(tiny_parts), name="mine")
    second = compose(
        **slots(
            tiny_parts,
            encoder=first.encoder,
            conditioner=first.conditioner,
            separator=first.separator,
            front_end=tiny_parts["front_end"].to_dict(),
        )
    )
    assert not first.training
    assert first.name == "mine"
    assert first.parts == {slot: part.to_dict() for slot, part in slots(tiny_parts).items()}
    assert second.parts == {"front_end": tiny_parts["front_end"].to_dict()}
    batch = {"mixture": mixture(1), "cues": CueBatch({"label": torch.tensor([[0, 2]])})}
    torch.testing.assert_close(first(batch).values, second(batch).values)


@pytest.mark.parametrize(
    ("slot", "part", "text"),
    [
        ("encoder", "iquery.cue", r"There is no encoder 'iquery.cue'; did you mean 'iquery.cues'\."),
        ("conditioner", "iquery.querys", r"There is no conditioner .*; did you mean 'iquery.queries'\."),
        ("separator", {"name": "maskunet"}, r"There is no separator 'maskunet'; did you mean 'mask_unet'\."),
        ("front_end", "mel", r"There is no front end 'mel'; known are stft\."),
        ("encoder", 7, "A part is given as 7; give its name, or a mapping"),
        ("separator", {"width": 4}, "give its name, or a mapping with name and settings"),
    ],
)
def test_unknown_parts(slot: str, part: Any, text: str, tiny_parts: dict[str, PartConfig]) -> None:
    with pytest.raises(CompositionError, match=text):
        compose(**slots(tiny_parts, **{slot: part}))


@pytest.mark.parametrize(
    ("slot", "change", "text"),
    [
        (
            "encoder",
            {"clases": ["a"]},
            r"encoder 'iquery.cues' has no setting 'clases'; did you mean 'classes'\.",
        ),
        ("encoder", {"optional": ["motion"]}, r"encoder .* cannot be built .*: optional names \['motion'\]"),
        ("encoder", {"stride": 8}, "encoder 'iquery.cues' cannot be built with these settings: KeyError: 8"),
        (
            "conditioner",
            {"depth": 3},
            "conditioner 'iquery.queries' has no setting 'depth'; it has queries, heads",
        ),
        ("conditioner", {"views": {}}, "conditioner 'iquery.queries' has no setting 'views'"),
        ("conditioner", {"heads": 3}, r"The latent has 16 channels; choose heads \(3\)"),
        ("separator", {"levels": 3}, "separator 'mask_unet' cannot be built .*: MaskUNet levels is 3"),
        ("separator", {"widths": {}}, "separator 'mask_unet' has no setting 'widths'; did you mean 'width'"),
        (
            "separator",
            {"levels": "many"},
            "separator 'mask_unet' cannot be built .*: TypeError: '<' not supported",
        ),
        ("front_end", {"hop": 64}, "front end 'stft' has no setting 'hop'"),
    ],
)
def test_wrong_settings(slot: str, change: dict[str, Any], text: str, tiny_parts: dict[str, PartConfig]) -> None:
    with pytest.raises(CompositionError, match=text):
        compose(**slots(tiny_parts, **{slot: settings(tiny_parts[slot], **change)}))


def test_missing_settings(tiny_parts: dict[str, PartConfig]) -> None:
    with pytest.raises(CompositionError, match=r"The encoder 'iquery.cues' needs the setting 'classes'; give it\."):
        compose(**slots(tiny_parts, encoder="iquery.cues"))


def test_an_encoder_that_does_not_give_what_the_conditioner_wants(
    toys: None, tiny_parts: dict[str, PartConfig]
) -> None:
    with pytest.raises(CompositionError) as caught:
        compose(**slots(tiny_parts, encoder="toy.map"))
    start, _, fitting = str(caught.value).partition("encoders that fit: ")
    assert start == "The conditioner 'iquery.queries' wants vector and the encoder 'toy.map' gives map; "
    assert "iquery.cues" in fitting.rstrip(".").split(", ")
    assert "toy.map" not in fitting
    assert BUILT == []


def test_a_separator_without_the_site(toys: None, tiny_parts: dict[str, PartConfig]) -> None:
    """Broken parts are passed over in the search for what would fit."""
    with pytest.raises(CompositionError) as caught:
        compose(**slots(tiny_parts, separator="toy.top"))
    assert str(caught.value) == (
        "The conditioner 'iquery.queries' acts at head, latent and the separator 'toy.top' has head; "
        "separators that fit: mask_unet."
    )
    with pytest.raises(CompositionError, match=r"'Gate' acts at bottom and .*; no registered separator fits\."):
        gate = Gate(views={"vector": 8}, sites={}, depth=1)
        gate.acts_at = frozenset({"bottom"})
        compose(**slots(tiny_parts, conditioner=gate))


def test_modules_are_checked_too(toys: None, tiny_parts: dict[str, PartConfig]) -> None:
    """By what they say themselves, under the name of their class."""
    gate = Gate(views={"vector": 8}, sites={}, depth=1)
    with pytest.raises(CompositionError, match="The conditioner 'Gate' wants vector and the encoder 'MapEncoder'"):
        compose(**slots(tiny_parts, conditioner=gate, encoder=MapEncoder()))
    with pytest.raises(CompositionError, match=r"'iquery.queries' acts at head, latent and the separator 'TopSep"):
        compose(**slots(tiny_parts, separator=TopSeparator()))


def test_nothing_is_built_before_everything_is_planned(toys: None, tiny_parts: dict[str, PartConfig]) -> None:
    """A wrong name or setting of the last part is found with no module made of the first."""
    gate = PartConfig("toy.gate", {"depth": 1})
    for change in (
        {"conditioner": "toy.gate"},
        {"conditioner": gate, "front_end": {"name": "stft", "hop": 1}},
        {"conditioner": gate, "separator": {"name": "toy.top", "width": 5}},
        {"conditioner": gate, "encoder": {"name": "toy.map", "size": 1}},
    ):
        with pytest.raises(CompositionError):
            compose(**slots(tiny_parts, **{"separator": "toy.top", **change}))
    assert BUILT == []
    with pytest.raises(CompositionError, match=r"'toy.top' cannot be built .*: RuntimeError: six is not possible"):
        compose(**slots(tiny_parts, conditioner=gate, separator={"name": "toy.top", "width": 6}))
    model = compose(**slots(tiny_parts, conditioner=gate, separator={"name": "toy.top", "anything": 1}))
    assert "conditioner" in BUILT
    estimate = model({"mixture": mixture(1), "cues": CueBatch({"label": torch.tensor([[0, 2]])})})
    assert estimate.values.shape == (1, 2, 128, 128)


def test_every_variant_of_every_method_fits() -> None:
    """From plans alone: on the meta device no weight is made."""
    for recipe in registry().methods().values():
        for variant in recipe.variant_names:
            with torch.device("meta"):
                model = compose_recipe(recipe.parts(variant), f"{recipe.name}.{variant}")
            assert sum(p.numel() for p in model.parameters()) > 0


def test_a_part_alone(tiny_parts: dict[str, PartConfig]) -> None:
    front = build_part("front_end", tiny_parts["front_end"])
    assert isinstance(front, StftFrontEnd)
    with pytest.raises(
        CompositionError, match=r"objective 'iquery.masks' has no setting 'mixtures'; did you mean 'mixture'"
    ):
        build_part("objective", PartConfig("iquery.masks", {"mixtures": "sum"}))
    with pytest.raises(CompositionError, match=r"'iquery.masks' cannot be built .*: Binary targets do not go with"):
        build_part("objective", PartConfig("iquery.masks", {"binary": True}))
