"""New classes for a trained model: what the old classes keep, what the new ones learn."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import avsep_zoo
from avsep_iquery.expand import add_classes
from avsep_iquery.objective import IQueryObjective
from avsep_zoo.contracts import CueBatch
from avsep_zoo.errors import CompositionError, DataError
from avsep_zoo.training.freeze import freeze, train_mode
from avsep_zoo.weights.cards import write_card

OLD = [[0, 1], [2, 0]]
BOTH = ["frames", "label"]


@torch.no_grad()
def masks(model: Any, batch: dict[str, Any], labels: list[list[int]] | None = None, *, frames: bool = True) -> Tensor:
    """Masks of a batch for some labels (-1 for none); all without labels, or without frames."""
    values = {"frames": batch["cues"].get("frames")} if frames else {}
    present = {}
    if labels is not None:
        values["label"] = torch.tensor(labels)
        present["label"] = values["label"] >= 0
    return model.eval()({"mixture": batch["mixture"], "cues": CueBatch(values, present)}).values


def train(model: Any, batch: dict[str, Any], labels: list[list[int]], steps: int = 4) -> None:
    """Some steps with the objective's own optimisers, weight decay included."""
    batch = {**batch, "cues": CueBatch({**batch["cues"].values, "label": torch.tensor(labels)})}
    objective = IQueryObjective(learning_rate=1e-2, weight_decay=0.1, recognition=0.1)
    optimisers = objective.optimisers(model)["model"]
    train_mode(model)
    for _ in range(steps):
        loss = objective.loss(model, batch)["loss"]
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()


SETTINGS = [{}, {"frozen": False}, {"optional": ["label"]}, {"optional": BOTH, "frozen": False}]


@pytest.mark.parametrize("settings", SETTINGS)
def test_old_classes_keep_every_bit(tiny_model: Any, tiny_batch: dict[str, Any], settings: dict[str, Any]) -> None:
    """After two expansions, each with its queries trained, labels of all classes given."""
    model = tiny_model(queries=5, **settings)
    before = masks(model, tiny_batch, OLD)
    first = add_classes(model, ["oboe", "harp"])
    assert torch.equal(masks(first, tiny_batch, OLD), before)
    freeze(first, ["all"])
    train(first, tiny_batch, [[3, 1], [2, 4]])
    assert torch.equal(masks(first, tiny_batch, OLD), before)
    more = [[3, 4], [0, 3]]
    between = masks(first, tiny_batch, more)
    second = add_classes(first, ["horn"])
    assert torch.equal(masks(second, tiny_batch, more), between)
    freeze(second, ["all"])
    train(second, tiny_batch, [[5, 3], [0, 5]])
    assert torch.equal(masks(second, tiny_batch, more), between)
    assert torch.equal(masks(second, tiny_batch, OLD), before)


@pytest.mark.parametrize("settings", SETTINGS)
def test_training_changes_the_new_class(tiny_model: Any, tiny_batch: dict[str, Any], settings: dict[str, Any]) -> None:
    """Also after a second expansion, which trains its own class and not that of the first."""
    model, labels = add_classes(tiny_model(**settings), ["oboe"]), [[3, 1], [2, 3]]
    before = masks(model, tiny_batch, labels)
    freeze(model, ["all"])
    train(model, tiny_batch, labels)
    after = masks(model, tiny_batch, labels)
    assert not torch.equal(after[0, 0], before[0, 0]) and not torch.equal(after[1, 1], before[1, 1])
    assert torch.equal(after[0, 1], before[0, 1]) and torch.equal(after[1, 0], before[1, 0])


def test_only_rows_of_new_classes_are_trained(tiny_model: Any, tiny_batch: dict[str, Any]) -> None:
    model = add_classes(add_classes(tiny_model(optional=BOTH, frozen=False), ["oboe"]), ["harp", "horn"])
    freeze(model, ["all"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, tiny_batch, [[4, 3], [5, 0]])
    moved = {name: (value != before[name]) for name, value in model.state_dict().items()}
    tables = ("encoder.added_recogniser.weight", "encoder.class_vectors.weight", "conditioner.query_embed.weight")
    assert sorted(name for name, where in moved.items() if where.any()) == sorted(tables)
    for name in tables[1:]:
        assert moved[name].any(dim=1).tolist() == [False] * 6 + [True, True], name
    assert moved[tables[0]].any(dim=1).tolist() == [False, True, True]


def test_new_queries_attend_to_the_old_ones(tiny_model: Any, tiny_batch: dict[str, Any]) -> None:
    """Old queries, and those of an earlier expansion, are part of what a new query knows."""
    model = add_classes(add_classes(tiny_model(), ["oboe"]), ["harp"])
    before = masks(model, tiny_batch, [[4, 3], [0, 4]])
    for row, changed in ((1, [True, True, True, True]), (5, [True, True, False, True])):
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.conditioner.query_embed.weight[row] += 1.0
        differs = masks(other, tiny_batch, [[4, 3], [0, 4]]) != before
        assert differs.flatten(2).any(dim=2).flatten().tolist() == changed


def test_rows_of_the_classes(tiny_model: Any) -> None:
    """Old classes, spare rows, then added classes; no label means the last original row."""
    model = tiny_model(queries=5, optional=["label"])
    expanded = add_classes(add_classes(model, ["oboe"]), ["Pan pipe"])
    assert expanded.classes == ("cello", "flute", "tuba", "oboe", "Pan pipe")
    assert expanded.encoder.label_index("pan-pipe") == 4
    asked = expanded.encoder(CueBatch({"label": torch.tensor([[-1, 4], [3, 0]])}, {"label": torch.ones(2, 2) > 0}))
    assert expanded.conditioner.wanted(asked).tolist() == [4, 6, 5, 0]
    vectors = expanded.encoder.class_vectors.weight
    assert torch.equal(asked.vector.flatten(0, 1), vectors[[4, 6, 5, 0]])
    assert torch.equal(vectors[:5], model.encoder.class_vectors.weight)
    queries = expanded.conditioner.query_embed.weight
    assert torch.equal(queries[:5], model.conditioner.query_embed.weight) and queries[5:].std() > 0.3
    assert expanded.encoder.gives["index"] == len(queries) == 7


def test_the_old_model_stays_as_it_was(tiny_model: Any, tiny_batch: dict[str, Any]) -> None:
    model = tiny_model(optional=BOTH)
    before, parts, keys = masks(model, tiny_batch, OLD), copy.deepcopy(model.parts), list(model.state_dict())
    add_classes(model, ["oboe", "harp", "horn"])
    assert model.classes == ("cello", "flute", "tuba") and model.parts == parts
    assert model.encoder.added == model.conditioner.added == () and list(model.state_dict()) == keys
    assert torch.equal(masks(model, tiny_batch, OLD), before)


def test_a_new_class_is_not_recognised_before_it_is_trained(tiny_model: Any, tiny_batch: dict[str, Any]) -> None:
    """Frames alone give what they gave; so does nothing at all."""
    model = tiny_model(optional=BOTH)
    expanded = add_classes(add_classes(model, ["oboe"]), ["harp"])
    assert torch.equal(masks(expanded, tiny_batch), masks(model, tiny_batch))
    nothing = [[-1, -1], [0, -1]]
    assert torch.equal(
        masks(expanded, tiny_batch, nothing, frames=False), masks(model, tiny_batch, nothing, frames=False)
    )


def test_frames_are_taken_for_a_new_class_only_where_it_is_the_likeliest(
    tiny_model: Any, tiny_batch: dict[str, Any]
) -> None:
    """The others keep every bit; a trained class takes its own frames over."""
    model = tiny_model(optional=BOTH)
    cues = CueBatch({"frames": tiny_batch["cues"].get("frames")})
    expanded = add_classes(model, ["oboe", "harp"])
    encoder = expanded.encoder
    with torch.no_grad():
        before, looks = model.encoder(cues), encoder.looks(cues)
        best = encoder.recogniser(looks).amax(dim=-1)
        rows = encoder.added_recogniser.weight
        rows[1, -1] = best.flatten().sort().values[1:3].mean()  # a constant score that beats two of the four sources
        after = encoder(cues)
    taken = best < rows[1, -1]
    assert taken.sum() == 2
    assert torch.equal(after.vector[~taken], before.vector[~taken])
    assert torch.equal(after.index, torch.where(taken, 6, before.index))
    assert torch.equal(after.vector[taken], encoder.class_vectors.weight[[6, 6]])


def test_a_new_class_learns_to_be_recognised(tiny_model: Any, tiny_batch: dict[str, Any]) -> None:
    model = add_classes(tiny_model(optional=BOTH), ["oboe"])
    freeze(model, ["all"])
    train(model, tiny_batch, [[3, 3], [3, 3]], steps=40)
    index = model.eval().encoder(CueBatch({"frames": tiny_batch["cues"].get("frames")})).index
    assert index.tolist() == [[5, 5], [5, 5]]


@pytest.mark.parametrize("optional", [[], ["label"], BOTH])
def test_a_card_of_an_expanded_model_loads(
    tiny_model: Any, tiny_batch: dict[str, Any], tmp_path: Path, optional: list[str]
) -> None:
    model = add_classes(add_classes(tiny_model(optional=optional), ["oboe", "harp"]), ["horn"])
    freeze(model, ["all"])
    train(model, tiny_batch, [[5, 1], [2, 5]])
    write_card(tmp_path / "card", model, name="iquery.more")
    loaded = avsep_zoo.load(tmp_path / "card")
    assert loaded.classes == ("cello", "flute", "tuba", "oboe", "harp", "horn")
    assert loaded.encoder.gives == model.encoder.gives
    labels = [[3, 4], [0, 5]]
    assert torch.equal(masks(loaded, tiny_batch, labels), masks(model, tiny_batch, labels))
    if optional:
        assert torch.equal(masks(loaded, tiny_batch), masks(model, tiny_batch))
    again = add_classes(loaded, ["gong"])
    assert again.parts["conditioner"]["added"] == [2, 1, 1]
    assert torch.equal(masks(again, tiny_batch, labels), masks(loaded, tiny_batch, labels))


def test_the_motion_variant_expands(tiny_model: Any, tiny_batch: dict[str, Any]) -> None:
    model = tiny_model(motion=6)
    motion = torch.randn(2, 2, 6, 3)

    def run(model: Any, labels: list[list[int]]) -> Tensor:
        cues = CueBatch({**tiny_batch["cues"].values, "motion": motion, "label": torch.tensor(labels)})
        with torch.no_grad():
            return model({"mixture": tiny_batch["mixture"], "cues": cues}).values

    expanded = add_classes(model, ["oboe"])
    assert torch.equal(run(expanded, OLD), run(model, OLD))
    assert not torch.equal(run(expanded, [[3, 1], [2, 0]])[0, 0], run(model, OLD)[0, 0])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "No new class"),
        (["Cello"], "'Cello' is there already"),
        (["oboe", "Oboe"], "'Oboe' is there already"),
        (["oboe", " "], "' ' has no name"),
    ],
)
def test_names_that_cannot_be_added(tiny_model: Any, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        add_classes(tiny_model(), names)


def test_a_model_without_class_queries(tiny_model: Any) -> None:
    model = tiny_model()
    model.conditioner = nn.Identity()
    with pytest.raises(CompositionError, match="Identity"):
        add_classes(model, ["oboe"])


def test_queries_the_encoder_does_not_count(tiny_model: Any) -> None:
    model = tiny_model(queries=5, spare_queries=1)
    with pytest.raises(CompositionError, match=r"set encoder\.spare_queries to 2"):
        add_classes(model, ["oboe"])
