"""Every encoder with every conditioner and every separator: what fits learns, what does not says why.

Parts are those that are registered, with their small settings.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from avsep_zoo.compose import build_part, compose
from avsep_zoo.contracts import CueBatch, CueEncoder, Embedding, Spectrum
from avsep_zoo.errors import CompositionError
from avsep_zoo.example_cues import example_cue_batch, example_embedding, example_sources
from avsep_zoo.generative.contract import DrivenSeparator
from avsep_zoo.generative.noise import Sampling
from avsep_zoo.recipe import PartConfig
from avsep_zoo.registry import registry

Triple = tuple[str, str, str, str | None]


def small(kind: str, name: str) -> PartConfig:
    return PartConfig(name, registry().get(kind, name).small)


def names(kind: str) -> list[str]:
    return [entry.name for entry in registry().list(kind)]


def separators() -> Iterator[tuple[str, str | None]]:
    """Every separator as it works alone, and with every driver if it can have one."""
    for name in names("separator"):
        kind = registry().part("separator", name)
        settings = small("separator", name).config
        if not kind.plan(**settings).driven:
            yield name, None
        if issubclass(kind, DrivenSeparator):
            yield from ((name, driver) for driver in names("driver"))


def fits(encoder: str, conditioner: str, separator: str) -> bool:
    """Whether the plans say so."""
    acts: Any = registry().part("conditioner", conditioner)
    gives = registry().part("encoder", encoder).plan(**small("encoder", encoder).config).gives
    sites = registry().part("separator", separator).plan(**small("separator", separator).config).sites
    return acts.wants <= set(gives) and acts.acts_at <= {site.kind for site in sites.values()}


def parts(triple: Triple) -> dict[str, Any]:
    encoder, conditioner, separator, driver = triple
    given: dict[str, Any] = {"conditioner": small("conditioner", conditioner), "front_end": small("front_end", "stft")}
    given |= {"encoder": small("encoder", encoder), "separator": small("separator", separator)}
    if driver is not None:
        given["driver"] = small("driver", driver)
        if not registry().part("separator", separator).plan(**given["separator"].config).driven:
            given["separator"] = given["separator"].changed({"driven": True})
    return given


def title(triple: Triple) -> str:
    return "-".join(part for part in triple if part)


ALL: list[Triple] = [
    (encoder, conditioner, *separator)
    for encoder, conditioner, separator in itertools.product(names("encoder"), names("conditioner"), separators())
]
FITTING = [triple for triple in ALL if fits(*triple[:3])]


@functools.cache
def looks(name: str) -> tuple[CueEncoder, CueBatch | Embedding]:
    """A small encoder and cues of two sources for it; an embedding where a cue would need a download."""
    try:
        encoder: CueEncoder = build_part("encoder", small("encoder", name))
    except CompositionError as error:
        if "install" in str(error):
            pytest.skip(str(error))
        raise
    if type(encoder).fetch is CueEncoder.fetch:
        return encoder, example_cue_batch(encoder, rate=8000)
    return encoder, example_embedding(encoder)


@functools.cache
def spectrum() -> Spectrum:
    """Of a mixture of two sources."""
    front_end = build_part("front_end", small("front_end", "stft"))
    analysed: Spectrum = front_end.analyse(example_sources(front_end.length, rate=front_end.rate).sum(1))
    return analysed


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    """The same weights whatever ran before, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("triple", FITTING, ids=title)
def test_what_fits_learns(triple: Triple) -> None:
    """Estimates of two sources, and gradients that are finite and reach every part that can be trained."""
    encoder, cues = looks(triple[0])
    encoder.zero_grad()
    model = compose(**parts(triple) | {"encoder": encoder}).train()
    estimate = model.estimate(spectrum(), cues, sampling=Sampling(steps=1))
    assert estimate.values.shape == (1, 2, 128, 128) and torch.isfinite(estimate.values).all()
    (estimate.values * torch.randn_like(estimate.values)).mean().backward()
    for slot, part in model.named_children():
        trained = {name: p for name, p in part.named_parameters() if p.requires_grad}
        gradients = {name: p.grad for name, p in trained.items() if p.grad is not None}
        broken = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
        assert not broken, (slot, broken)
        reached = any(gradient.any() for gradient in gradients.values())
        assert reached or not trained or (slot == "encoder" and isinstance(cues, Embedding)), slot


@pytest.mark.parametrize("triple", [triple for triple in ALL if triple not in FITTING], ids=title)
def test_what_does_not_fit_says_why(triple: Triple) -> None:
    """Before anything is built: which two parts, and what would fit one of them."""
    with pytest.raises(CompositionError, match=r"; \w+s that fit: \w|; no registered \w+ fits") as raised:
        compose(**parts(triple))
    encoder, conditioner, separator, _ = (repr(part) for part in triple)
    said = str(raised.value)
    assert conditioner in said and (encoder in said) != (separator in said)
    others = re.search(r"that fit: (.*)\.$", said)
    fitting = others[1].split(", ") if others else []
    acts: Any = registry().part("conditioner", triple[1])
    for name in fitting if encoder in said else ():
        assert acts.wants <= set(registry().part("encoder", name).plan().gives)
    for name in fitting if separator in said else ():
        assert acts.acts_at <= {site.kind for site in registry().part("separator", name).plan().sites.values()}


@pytest.mark.parametrize("separator", [name for name, driver in separators() if driver is None])
def test_a_driver_of_a_separator_that_reads_no_noise(separator: str) -> None:
    """Named with the separators that can be driven."""
    encoder, conditioner = next((e, c) for e, c, s, driver in FITTING if s == separator and driver is None)
    given = parts((encoder, conditioner, separator, None)) | {"driver": "flow"}
    with pytest.raises(CompositionError, match=rf"'flow' drives nothing: the separator '{separator}' reads no noise"):
        compose(**given)


def test_everything_registered_is_part_of_the_matrix() -> None:
    """No part that fits nothing, and a small model of each."""
    for place, kind in enumerate(("encoder", "conditioner", "separator", "driver")):
        assert {triple[place] for triple in FITTING} - {None} == set(names(kind))
