"""Co-separation: mixture rules, targets, the losses by hand, which labels may be exchanged, and the optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from avsep_avsgs.conditioner import orthogonality_loss
from avsep_avsgs.objective import CoSeparationObjective, class_losses, co_separation_loss, swapped_labels
from avsep_zoo import SeparationModel, compose
from avsep_zoo.blocks.tiled_concat import TiledConcat
from avsep_zoo.contracts import Bound, CueBatch, Embedding
from avsep_zoo.errors import CompositionError
from avsep_zoo.recipe import PartConfig

TinyModel = Callable[..., SeparationModel]


@pytest.fixture
def batch() -> dict[str, Any]:
    """Two mixtures of two recordings: of two sounds, one, one without a name, and two."""
    generator = torch.Generator().manual_seed(1)
    sources = 0.1 * torch.randn(2, 2, 1023, generator=generator)
    nodes = torch.randn(2, 2, 16, 4, generator=generator)
    mask = torch.zeros(2, 2, 4)
    mask[0, 1, 2:] = torch.inf
    objects = torch.tensor([[[1, 2, 0], [3, -1, 0]], [[-2, -1, 0], [2, 3, 0]]])
    named = torch.tensor([[[1, 0, 2, -2], [3, -2, 0, 0]], [[-2, -2, -2, -2], [0, 2, 3, -2]]])
    taught = {"objects": objects, "node_classes": named}
    return {"sources": sources, "cues": CueBatch({"detections": nodes, "detections_mask": mask} | taught)}


def objective(**settings: Any) -> CoSeparationObjective:
    return CoSeparationObjective(**{"classes": 3, "classifier_width": 2, **settings})


def test_mixture_rules() -> None:
    sources = torch.randn(2, 3, 100)
    mixture, truth = objective(mixture="mean").mix(sources)
    torch.testing.assert_close(mixture, sources.mean(dim=1))
    torch.testing.assert_close(truth, sources / 3)
    mixture, truth = objective(mixture="sum").mix(sources)
    torch.testing.assert_close(mixture, sources.sum(dim=1))
    assert torch.equal(truth, sources)


def test_loss_by_hand(tiny_model: TinyModel, batch: dict[str, Any]) -> None:
    """Sums of the masks of what is there against the recording's own, undivided; the classes; the cosines."""
    model, taught = tiny_model(), objective().eval()
    losses = taught.loss(model, batch)
    front = model.front_end
    mixture = front.warp(front.stft(batch["sources"].mean(dim=1)).abs()[:, None] + 1e-10)
    target = (front.warp(front.stft(batch["sources"]).abs()) / mixture).clamp(0, 5)
    bound = model.conditioner.bind(model.encoder(batch["cues"]), unroll=3)
    masks = model.separator(front.analyse(batch["sources"].mean(dim=1)), bound).values.unflatten(1, (2, 3))
    sounds = batch["cues"].get("objects")
    total = (masks * (sounds != -1)[..., None, None]).sum(dim=2)
    wanted = ((total - target).abs() * torch.log1p(mixture).clamp(1e-3, 10)).mean()
    torch.testing.assert_close(losses["co_separation"], wanted)
    logits = taught.classifier(torch.log(masks * mixture[:, :, None] + 1e-10).flatten(0, 2)[:, None])  # type: ignore[misc]
    rows = [
        -torch.log_softmax(row, dim=0)[label] * (label >= 0)
        for row, label in zip(logits, sounds.flatten(), strict=True)
    ]
    torch.testing.assert_close(losses["class"], torch.stack(rows).mean())
    torch.testing.assert_close(losses["orthogonality"], orthogonality_loss(bound.unrolled.flatten(0, 1)))
    parts = losses["co_separation"] + 0.05 * losses["class"] + losses["orthogonality"]
    torch.testing.assert_close(losses["loss"], parts)


def test_mixtures_do_not_see_each_other(tiny_model: TinyModel, batch: dict[str, Any]) -> None:
    """In evaluation the loss of masks of a batch is the mean of those of its mixtures."""
    model, taught = tiny_model(), objective(class_weight=0.0)
    both = taught.loss(model, batch)["co_separation"]
    values = batch["cues"].values
    alone = [
        taught.loss(
            model,
            {
                "sources": batch["sources"][k : k + 1],
                "cues": CueBatch({name: value[k : k + 1] for name, value in values.items()}),
            },
        )["co_separation"]
        for k in range(2)
    ]
    torch.testing.assert_close(torch.stack(alone).mean(), both)


@pytest.mark.parametrize("kind", ["l1", "l2", "bce"])
def test_mask_losses(kind: Any) -> None:
    masks = torch.tensor([0.25, 0.5, 0.75])[None, :, None, None].expand(1, 3, 2, 2)
    target, weight = torch.full((1, 2, 2), 0.5), torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    loss = co_separation_loss(masks, target, weight, torch.tensor([[1.0, 0.0, 1.0]]), kind)
    wanted = {"l1": 0.5, "l2": 0.25, "bce": 50.0}[kind]  # the logarithm of zero counts as -100
    assert loss.item() == pytest.approx(1.5 * wanted)


def test_missing_and_unnamed_sounds_teach_no_class() -> None:
    logits = torch.randn(1, 3, 4, requires_grad=True)
    losses = class_losses(logits, torch.tensor([[-1, 2, -2]]))
    assert losses[0, [0, 2]].eq(0).all()
    assert losses[0, 1].item() == pytest.approx(-torch.log_softmax(logits, dim=-1)[0, 1, 2].item())
    losses.sum().backward()
    assert logits.grad is not None and logits.grad[0, [0, 2]].eq(0).all()


@pytest.mark.parametrize(
    ("labels", "exchanged"),
    [
        ([1, 2, 0], [2, 1, 0]),
        ([2, 1, 0], [2, 1, 0]),
        ([1, 2, -1], [1, 2, -1]),
        ([1, -2, 0], [1, -2, 0]),
        ([1, 2], [2, 1]),
        ([1, 0], [1, 0]),
        ([1], [1]),
    ],
)
def test_labels_that_suit_better_are_exchanged(labels: list[int], exchanged: list[int]) -> None:
    """Of the first two objects, where all sounds are there and named; never those of the background."""
    logits = torch.zeros(len(labels), 3)
    logits[0, 2] = 5.0
    if len(labels) > 1:
        logits[1, 1] = 5.0
    if labels == [1, 0]:
        logits = torch.tensor([[5.0, 0, 0], [0, 5.0, 0]])
    assert swapped_labels(logits[None], torch.tensor([labels]))[0].tolist() == exchanged


def test_labels_are_exchanged_in_training_only(tiny_model: TinyModel) -> None:
    """Then either order of two objects costs as little as the better one."""
    front, taught = tiny_model().front_end, objective()
    taught.classifier.eval()  # type: ignore[union-attr]
    taught.classifier.fc.weight.data *= 1000  # type: ignore[union-attr]
    spectrum, magnitudes = front.analyse(torch.randn(1, 1023)), torch.rand(1, 1, 64, 16)
    masks = torch.rand(1, 3, *spectrum.warped.shape[2:]) ** torch.tensor([0.1, 1.0, 9.0])[:, None, None]
    losses: dict[tuple[bool, int], float] = {}
    for taught.training in (True, False):
        for first in (1, 2):
            sounds = torch.tensor([[[first, 3 - first, 0]]])
            losses[taught.training, first] = taught.losses(front, spectrum, magnitudes, masks, sounds)["class"].item()
    assert losses[True, 1] == losses[True, 2] == min(losses[False, 1], losses[False, 2])
    assert losses[False, 1] != losses[False, 2]


def test_targets(tiny_model: TinyModel, batch: dict[str, Any]) -> None:
    """Of undivided recordings, up to the limit, with the gain of the front end."""
    front = tiny_model().front_end
    spectrum, magnitudes = front.analyse(torch.randn(1, 1023)), torch.rand(1, 2, 64, 16)
    plain = objective().targets(front, spectrum, magnitudes)
    assert plain.shape == spectrum.warped.expand(1, 2, -1, -1).shape and plain.max() <= 5
    assert objective(target_limit=0.5).targets(front, spectrum, magnitudes).max() == 0.5
    spectrum.gain = torch.full((1, 1, 1, 1), 2.0)
    torch.testing.assert_close(objective().targets(front, spectrum, magnitudes), (2 * plain).clamp_max(5))


def test_recognition_in_the_embedding(tiny_model: TinyModel, batch: dict[str, Any]) -> None:
    model, taught = tiny_model(), objective(class_weight=0.0, recognition=0.5, recognised=[8, 8], orthogonality=0.0)
    losses = taught.loss(model, batch)
    assert set(losses) == {"loss", "co_separation", "recognition", "node_recognition"} and taught.classifier is None
    both = losses["recognition"] + losses["node_recognition"]
    torch.testing.assert_close(losses["loss"], losses["co_separation"] + 0.5 * both)
    embedding, named = model.encoder(batch["cues"]), batch["cues"].get("node_classes")
    counts = (named >= 0) & ~torch.isinf(embedding.tokens_bias)
    assert counts.sum() == 7
    logits = taught.recognisers[0](embedding.tokens[counts])  # type: ignore[index]
    torch.testing.assert_close(losses["node_recognition"], torch.nn.functional.cross_entropy(logits, named[counts]))
    named[:] = -2
    assert taught.loss(model, batch)["node_recognition"] == 0


def test_background_is_in_the_mixture_only(tiny_model: TinyModel, batch: dict[str, Any]) -> None:
    model, taught = tiny_model(), objective().eval()
    plain = taught.loss(model, batch)["loss"]
    torch.testing.assert_close(taught.loss(model, {**batch, "background": torch.zeros(2, 1023)})["loss"], plain)
    assert not torch.allclose(taught.loss(model, {**batch, "background": torch.randn(2, 1023)})["loss"], plain)


@pytest.mark.parametrize("settings", [{}, {"loss": "bce", "target_limit": 1.0}, {"loss": "l2"}])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_everything_learns(
    tiny_model: TinyModel, batch: dict[str, Any], settings: dict[str, Any], precision: str
) -> None:
    """Model and classifier, also under autocast; silence gives no NaN."""
    model, taught = tiny_model().train(), objective(recognition=0.1, recognised=[8, 8], **settings)
    batch["sources"][0] = 0.0
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        losses = taught.loss(model, batch)
    losses["loss"].backward()
    learned = [*model.parameters(), *taught.parameters()]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in learned)
    assert all(math.isfinite(value.item()) for value in losses.values())


def test_training_lowers_the_loss(tiny_model: TinyModel, batch: dict[str, Any]) -> None:
    model, taught = tiny_model().train(), objective(orthogonality=0.1, learning_rate=1e-2, weight_decay=0.0)
    (optimiser,) = taught.optimisers(model)["model"]
    losses = []
    for _ in range(30):
        loss = taught.loss(model, batch)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_the_optimiser_takes_what_is_trained(tiny_model: TinyModel) -> None:
    """Once each, the classifier too; the graph network at its own rate unless one is given for all."""
    model, taught = tiny_model(), objective(learning_rate=1e-3, graph_learning_rate=1e-4)
    (optimiser,) = taught.optimisers(model)["model"]
    taken = [id(p) for group in optimiser.param_groups for p in group["params"]]
    assert sorted(taken) == sorted(id(p) for p in (*model.parameters(), *taught.parameters()))
    assert isinstance(optimiser, torch.optim.Adam) and {g["weight_decay"] for g in optimiser.param_groups} == {1e-4}
    graph: Any = model.conditioner.graph
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in graph.parameters()} == {1e-4} and set(rates.values()) == {1e-4, 1e-3}
    (given,) = taught.optimisers(model, learning_rate=0.5)["model"]
    assert {group["lr"] for group in given.param_groups} == {0.5}
    graph.requires_grad_(False)
    assert len(taught.optimisers(model)["model"][0].param_groups) == 1


class MeanOfNodes(TiledConcat):
    """Another conditioner: one vector, and one mask, per recording."""

    wants = frozenset({"tokens"})

    def bind(self, embedding: Embedding) -> Bound:
        assert embedding.tokens is not None
        return super().bind(Embedding(vector=embedding.tokens.mean(dim=2)))


def test_a_conditioner_that_does_not_unroll(tiny_model: TinyModel, batch: dict[str, Any]) -> None:
    """The mask is the recording's; it has a class where the recording has a single sound."""
    model = tiny_model()
    conditioner = MeanOfNodes(views={"vector": 8}, sites=model.separator.sites)
    model = compose(
        encoder=model.encoder, conditioner=conditioner, separator=PartConfig.parse(model.parts["separator"]),
        front_end=model.front_end,
    )  # fmt: skip
    taught = objective().eval()
    losses = taught.loss(model, batch)
    assert set(losses) == {"loss", "co_separation", "class"} and losses["class"] == 0
    batch["cues"].values["objects"] = batch["cues"].values["objects"].where(torch.tensor([True, False, False]), -1)
    one = taught.loss(model, batch)
    torch.testing.assert_close(one["co_separation"], losses["co_separation"])
    assert one["class"] > 0


@pytest.mark.parametrize(
    ("settings", "encoder", "why"),
    [
        ({"classes": 5}, {"classes": ["a", "b"]}, "has 5 classes and composed has 2; set classes of the objective to"),
        ({"recognition": 0.1, "recognised": [8, 9]}, {}, r"of \[8, 9\] numbers and composed has \[8, 8\]; set recog"),
    ],
)
def test_models_it_does_not_fit(
    tiny_model: TinyModel, settings: dict[str, Any], encoder: dict[str, Any], why: str
) -> None:
    with pytest.raises(CompositionError, match=why):
        objective(**settings).optimisers(tiny_model(**encoder))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"mixture": "max"}, "The mixture is 'max'"),
        ({"loss": "l3"}, "the loss 'l3'; give"),
        ({"classes": 0}, "The losses of classes need their number"),
        ({"classes": 0, "class_weight": 0.0, "recognition": 1.0}, "The losses of classes need their number"),
        ({"recognised": [8]}, r"recognised is \[8\]; give the widths"),
        ({"loss": "bce"}, r"needs targets up to 1 and target_limit is 5\.0; set it to 1"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        objective(**settings)
