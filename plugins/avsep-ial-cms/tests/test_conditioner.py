"""Cross-modal attention: each step against loops, its switches, and the embeddings and separators it fits."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avsep_ial_cms.conditioner import CrossModal, CrossModalAttention
from avsep_zoo.contracts import Embedding, Site

SITES = {"bottleneck": Site("bottleneck", 5), "decoder3": Site("decoder", 4), "decoder2": Site("decoder", 3)}
SEEN, WIDTH = 6, 7


def attention(**settings: Any) -> CrossModalAttention:
    """In evaluation mode, with parameters and statistics that are not those of a fresh one."""
    made = CrossModalAttention(views={"map": SEEN}, sites=SITES, **{"width": WIDTH, "hidden": 9, **settings}).eval()
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0.0, 0.2)
                module.running_var.uniform_(0.5, 2.0)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0.0, 0.2)
        made.slope.fill_(3.0)
        made.offset.fill_(-0.7)
    return made


def maps(batch: int = 2, sources: int = 3) -> Tensor:
    """Unit vectors at 4 x 5 places."""
    drawn: Tensor = nn.functional.normalize(torch.randn(batch, sources, SEEN, 4, 5), dim=2)
    return drawn


def layer(x: list[float], weight: Tensor, bias: Tensor) -> list[float]:
    """A linear layer."""
    rows = weight.reshape(len(weight), -1).tolist()
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(rows, bias.tolist(), strict=True)]


def leaky(x: list[float]) -> list[float]:
    return [v if v > 0 else 0.2 * v for v in x]


def normed(x: list[float], norm: Any) -> list[float]:
    """Batch norm in evaluation mode."""
    values = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    columns = zip(x, *(v.tolist() for v in values), strict=True)
    return [(v - m) / math.sqrt(s + 1e-5) * w + b for v, m, s, w, b in columns]


def unit(x: list[float]) -> list[float]:
    length = max(math.sqrt(sum(v * v for v in x)), 1e-12)
    return [v / length for v in x]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mean(vectors: list[list[float]]) -> list[float]:
    return [sum(values) / len(vectors) for values in zip(*vectors, strict=True)]


def level(x: list[float]) -> list[float]:
    """At a root mean square of 1."""
    return [v * math.sqrt(len(x)) for v in unit(x)]


def plainly(made: Any, heard: Tensor, seen: Tensor) -> SimpleNamespace:
    """One object: features (C, H, W) of the mixture and its map (D, h, w), point by point in Python's numbers."""
    points, looks = heard.flatten(1).T.tolist(), seen.flatten(1).T.tolist()
    peaks = [max(values) for values in zip(*looks, strict=True)]
    peaks = level(peaks) if made.equalised else peaks
    separated, common = [], []
    for point in points:
        inner = normed(leaky(layer(point + peaks, made.separate[0].weight, made.separate[0].bias)), made.separate[2])
        outer = normed(leaky(layer(inner, made.separate[3].weight, made.separate[3].bias)), made.separate[5])
        separated.append(outer)
        inner = normed(leaky(layer(outer, made.common[0].weight, made.common[0].bias)), made.common[2])
        common.append(unit(layer(inner, made.common[3].weight, made.common[3].bias)))
    voice = unit(mean(common))
    cosines, weights, look = [], [], peaks
    if made.spatial:
        for place in looks:
            dot = sum(a * b for a, b in zip(place, voice, strict=True))
            cosines.append(dot / (math.hypot(*place) * math.hypot(*voice)))
            weights.append(sigmoid(made.slope.item() * cosines[-1] + made.offset.item()))
        added = [sum(w * v for w, v in zip(weights, values, strict=True)) for values in zip(*looks, strict=True)]
        look = level(added) if made.equalised else [v / sum(abs(a) for a in added) for v in added]
    gated, gates = separated, []
    if made.channel:
        agreement = mean([[v * c for v, c in zip(look, point, strict=True)] for point in common])
        inner = normed(leaky(layer(agreement, made.gate[0].weight, made.gate[0].bias)), made.gate[2])
        gates = [sigmoid(v) for v in layer(inner, made.gate[3].weight, made.gate[3].bias)]
        gated = [[g * v + v for g, v in zip(gates, point, strict=True)] for point in separated]
    out = [look + point for point in gated]
    return SimpleNamespace(
        separated=separated, heard=voice, cosines=cosines, localisation=weights, seen=look, gates=gates,
        context=look + mean(gated), out=out,
    )  # fmt: skip


def close(found: Tensor, wanted: Any) -> None:
    torch.testing.assert_close(found, torch.tensor(wanted), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize("channel", [True, False])
@pytest.mark.parametrize("equalised", [True, False])
def test_the_bottleneck_by_hand(spatial: bool, channel: bool, equalised: bool) -> None:
    """All that is kept of a forward pass, of every object."""
    made = attention(spatial=spatial, channel=channel, equalised=equalised)
    seen, features = maps(), torch.randn(2, 5, 2, 3)
    bound = made.bind(Embedding(map=seen))
    out = bound("bottleneck", features)
    assert out.shape == (6, SEEN + WIDTH, 2, 3)
    for b in range(2):
        for n in range(3):
            wanted = plainly(made, features[b], seen[b, n])
            close(out[3 * b + n].flatten(1).T, wanted.out)
            close(bound.separated[3 * b + n].flatten(1).T, wanted.separated)
            close(bound.heard[b, n], wanted.heard)
            close(bound.seen[b, n], wanted.seen)
            close(bound.context[3 * b + n], wanted.context)
            if spatial:
                assert bound.cosines is not None and bound.localisation is not None
                close(bound.cosines[b, n].flatten(), wanted.cosines)
                close(bound.localisation[b, n].flatten(), wanted.localisation)
            if channel:
                assert bound.gates is not None
                close(bound.gates[b, n], wanted.gates)
    assert (bound.cosines is None) == (bound.localisation is None) == (not spatial)
    assert (bound.gates is None) == (made.gate is None) == (not channel)


@pytest.mark.parametrize("site", ["decoder3", "decoder2"])
def test_a_decoder_level_by_hand(site: str) -> None:
    """Every channel of every object gets a scale and an offset from the context."""
    made = attention()
    bound = made.bind(Embedding(map=maps(1, 2)))
    bound("bottleneck", torch.randn(1, 5, 2, 3))
    features = torch.randn(2, SITES[site].channels, 3, 4) * 5 + 2
    out = bound(site, features)
    for n in range(2):
        context = bound.context[n].tolist()
        scales, offsets = (
            layer(context, part[site].weight, part[site].bias)  # type: ignore[arg-type]
            for part in (made.style_scale, made.style_offset)
        )
        for c, (scale, offset) in enumerate(zip(scales, offsets, strict=True)):
            points = features[n, c].flatten().tolist()
            middle = sum(points) / 12
            spread = math.sqrt(sum((p - middle) ** 2 for p in points) / 12 + 1e-5)
            close(out[n, c].flatten(), [(p - middle) / spread * scale + offset for p in points])


@pytest.mark.parametrize(("factor", "shift"), [(0.05, 0.0), (300.0, 0.0), (1.0, -40.0)])
@pytest.mark.parametrize("training", [False, True])
def test_decoder_levels_do_not_hear_how_loud_they_are(factor: float, shift: float, training: bool) -> None:
    """Scaling or moving the features of a level changes nothing but rounding, in training, too."""
    made = attention().train(training)
    bound = made.bind(Embedding(map=maps(1, 2)))
    bound("bottleneck", torch.randn(1, 5, 2, 3))
    features = 3 * torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(
        bound("decoder3", factor * features + shift), bound("decoder3", features), atol=2e-4, rtol=1e-3
    )


def test_other_sites_pass() -> None:
    bound, features = attention().bind(Embedding(map=maps())), torch.randn(2, 5, 2, 3)
    assert bound("head", features) is features


def test_objects_and_mixtures_do_not_see_each_other() -> None:
    made, seen, features = attention(), maps(), torch.randn(2, 5, 2, 3)
    both, alone = made.bind(Embedding(map=seen)), made.bind(Embedding(map=seen[1:, 2:]))
    out = both("bottleneck", features)
    torch.testing.assert_close(alone("bottleneck", features[1:]), out[5:])
    level = torch.randn(6, 4, 3, 3)
    torch.testing.assert_close(alone("decoder3", level[5:]), both("decoder3", level)[5:])
    torch.testing.assert_close(alone.localisation, both.localisation[1:, 2:])  # type: ignore[index]


def test_features_of_each_object_stay_apart() -> None:
    """A separator that has expanded its features already."""
    made, seen, features = attention(), maps(), torch.randn(2, 5, 2, 3)
    out = made.bind(Embedding(map=seen))("bottleneck", features)
    expanded = made.bind(Embedding(map=seen))("bottleneck", features.repeat_interleave(3, dim=0))
    torch.testing.assert_close(expanded, out)


def test_repeated_embeddings() -> None:
    """As those of one look are repeated for all segments."""
    made, embedding = attention(), Embedding(map=maps(1, 2))
    features = torch.randn(1, 5, 2, 3)
    out = made.bind(embedding.repeat(3))("bottleneck", features.repeat(3, 1, 1, 1))
    torch.testing.assert_close(out, made.bind(embedding)("bottleneck", features).repeat(3, 1, 1, 1))


def test_places_that_sound_alike_weigh_more() -> None:
    """Localisation is 0 to 1 and grows with the cosine."""
    bound = attention().bind(Embedding(map=maps()))
    bound("bottleneck", torch.randn(2, 5, 2, 3))
    assert bound.cosines is not None and bound.localisation is not None
    order = bound.cosines.flatten().argsort()
    sorted_weights = bound.localisation.flatten()[order]
    assert (sorted_weights.diff() >= 0).all() and 0 < sorted_weights[0] < sorted_weights[-1] < 1


def test_all_parameters_learn() -> None:
    """So does the encoder behind the map."""
    made, seen = attention().train(), maps().requires_grad_()
    bound = made.bind(Embedding(map=seen))
    out = bound("bottleneck", torch.randn(2, 5, 2, 3))
    levels = [bound(site, torch.randn(6, SITES[site].channels, 3, 3)) for site in ("decoder3", "decoder2")]
    sum((x * torch.randn_like(x)).sum() for x in (out, *levels)).backward()  # type: ignore[union-attr]
    learned = [*made.parameters(), seen]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in learned)


@pytest.mark.parametrize("equalised", [True, False])
def test_silent_and_blank_input_is_finite(equalised: bool) -> None:
    """Maps of zeros, and features that are the same everywhere, with gradients."""
    made, seen = attention(equalised=equalised).train(), torch.zeros(1, 2, SEEN, 4, 4, requires_grad=True)
    bound = made.bind(Embedding(map=seen))
    out = bound("bottleneck", torch.zeros(1, 5, 2, 2))
    level = bound("decoder3", torch.zeros(2, 4, 3, 3))
    (out.sum() + level.sum()).backward()
    assert torch.isfinite(out).all() and torch.isfinite(level).all()
    assert seen.grad is not None and torch.isfinite(seen.grad).all()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_other_precisions(kind: torch.dtype) -> None:
    """Of the whole module, and of parts of it under autocast."""
    made, seen, features = attention(), maps(), torch.randn(2, 5, 2, 3)
    wanted = made.bind(Embedding(map=seen))("bottleneck", features)
    with torch.autocast("cpu", torch.bfloat16):
        bound = made.bind(Embedding(map=seen))
        mixed = bound("bottleneck", features)
        level = bound("decoder3", torch.randn(6, 4, 3, 3))
    assert bound.heard.dtype == torch.float32 and torch.isfinite(level).all()
    torch.testing.assert_close(mixed.float(), wanted, atol=0.1, rtol=0.05)
    bound = made.to(kind).bind(Embedding(map=seen))
    other = bound("bottleneck", features.to(kind))
    assert other.dtype == bound("decoder3", torch.randn(6, 4, 3, 3).to(kind)).dtype == kind
    torch.testing.assert_close(other.float(), wanted, atol=0.1, rtol=0.05)


def test_state_survives_saving() -> None:
    one, other, embedding = attention(), attention(), Embedding(map=maps())
    features = torch.randn(2, 5, 2, 3)
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(
        other.bind(embedding)("bottleneck", features), one.bind(embedding)("bottleneck", features)
    )


def test_widths() -> None:
    """The map's channels in front of the object's; decoder levels keep theirs; heads are left alone."""
    plan = CrossModalAttention.plan(views={"map": 6}, sites=SITES | {"head": Site("head", 9)}, width=7)
    assert dict(plan.widths) == dict(attention().widths()) == {"bottleneck": 13, "decoder3": 4, "decoder2": 3}
    assert (plan.wants, plan.acts_at) == ({"map"}, {"bottleneck", "decoder"})


def test_published_size() -> None:
    """Without the decoder's layers, which are counted with the U-Net."""
    with torch.device("meta"):
        made = CrossModalAttention(views={"map": 512}, sites={"bottleneck": Site("bottleneck", 512)})
    assert sum(p.numel() for p in made.parameters()) == 2_630_146


@pytest.mark.parametrize(
    ("sites", "settings", "why"),
    [
        ({"decoder2": Site("decoder", 3)}, {}, "needs one bottleneck and the separator has 0"),
        ({"a": Site("bottleneck", 3), "b": Site("bottleneck", 3)}, {}, "needs one bottleneck and the separator has 2"),
        (SITES, {"width": 0}, "has width 0 and hidden 1024; give numbers from 1"),
        (SITES, {"hidden": 0}, "has width 512 and hidden 0; give numbers from 1"),
    ],
)
def test_separators_and_settings_that_do_not_fit(sites: dict[str, Site], settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        CrossModalAttention.plan(views={"map": 6}, sites=sites, **settings)
    with pytest.raises(ValueError, match=why):
        CrossModalAttention(views={"map": 6}, sites=sites, **settings)


def test_embeddings_without_a_map() -> None:
    made = attention()
    assert isinstance(made.bind(Embedding(map=maps())), CrossModal)
    with pytest.raises(ValueError, match="needs an embedding with a map"):
        made.bind(Embedding(vector=torch.zeros(1, 2, 6)))
