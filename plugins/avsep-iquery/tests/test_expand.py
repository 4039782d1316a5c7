"""New classes for a trained model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import avsep_zoo
from avsep_iquery.expand import add_classes, freeze_for_expansion
from avsep_iquery.objective import IQueryObjective
from avsep_zoo.cards import write_card
from avsep_zoo.contracts import CueBatch
from avsep_zoo.errors import CompositionError, CueError, DataError


@torch.no_grad()
def masks(model: Any, batch: dict[str, Any], labels: list[list[int]] | None = None) -> Tensor:
    """Masks of a batch, for other labels where they are given."""
    cues = batch["cues"]
    if labels is not None:
        label = torch.tensor(labels)
        cues = CueBatch({**cues.values, "label": label}, {"label": label >= 0})
    return model.eval()({"mixture": batch["mixture"], "cues": cues}).values


def train(model: Any, batch: dict[str, Any], labels: list[list[int]], steps: int = 3) -> None:
    """Some steps with the objective's own optimisers."""
    batch = {**batch, "cues": CueBatch({**batch["cues"].values, "label": torch.tensor(labels)})}
    objective = IQueryObjective(learning_rate=1e-2, weight_decay=0.1)
    optimisers = objective.optimisers(model)
    model.train()
    for _ in range(steps):
        loss = objective.loss(model, batch)["loss"]
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()


def test_a_spare_query_changes_no_output(tiny_model: Any, tiny_batch: dict[str, Any]) -> None:
    model = tiny_model(queries=5)
    before = masks(model, tiny_batch)
    expanded = add_classes(model, ["oboe", "Pan pipe"])
    assert expanded.classes == ("cello", "flute", "tuba", "oboe", "Pan pipe")
    assert torch.equal(masks(expanded, tiny_batch), before)
    assert expanded.encoder.label_index("pan-pipe") == 4
    assert expanded.state_dict().keys() == model.state_dict().keys()
    assert not torch.equal(masks(expanded, tiny_batch, [[3, 1], [2, 0]])[0], before[0])


def test_the_old_model_stays_as_it_was(tiny_model: Any, tiny_batch: dict[str, Any]) -> None:
    model = tiny_model(queries=4)
    before, parts = masks(model, tiny_batch), copy.deepcopy(model.parts)
    add_classes(model, ["oboe", "harp", "horn"])
    assert model.classes == ("cello", "flute", "tuba") and model.parts == parts
    assert torch.equal(masks(model, tiny_batch), before)


def test_more_classes_than_spare_queries(tiny_model: Any, tiny_batch: dict[str, Any]) -> None:
    """Rows are appended; the old queries see them, so old outputs move a little at once."""
    model = tiny_model(queries=4)
    expanded = add_classes(model, ["oboe", "harp", "horn"])
    weight = expanded.conditioner.query_embed.weight
    assert weight.shape == (6, 16)
    assert torch.equal(weight[:4], model.conditioner.query_embed.weight)
    assert weight[4:].std() > 0.3
    before, after = masks(model, tiny_batch), masks(expanded, tiny_batch)
    assert not torch.equal(after, before)
    assert (after - before).abs().max() < 0.1
    assert expanded.encoder.gives["index"] == 6


def test_the_query_for_no_label_stays_last(tiny_model: Any) -> None:
    model = tiny_model(queries=4, optional=["label"])
    none = model.conditioner.query_embed.weight[-1]
    expanded = add_classes(model, ["oboe"])
    weight = expanded.conditioner.query_embed.weight
    assert weight.shape == (5, 16)
    assert torch.equal(weight[-1], none) and torch.equal(weight[:3], model.conditioner.query_embed.weight[:3])
    asked = expanded.encoder(CueBatch({"label": torch.tensor([[-1, 3], [0, -1]])}))
    assert expanded.conditioner.wanted(asked).tolist() == [4, 3, 0, 4]
    vectors, old = expanded.encoder.class_vectors.weight, model.encoder.class_vectors.weight
    assert vectors.shape == (5, 8)
    assert torch.equal(vectors[-1], old[-1]) and torch.equal(vectors[:3], old[:3])


def test_a_new_class_is_not_recognised_before_it_is_trained(tiny_model: Any, tiny_batch: dict[str, Any]) -> None:
    """Frames of the old classes are recognised to the last bit as before."""
    model = tiny_model(queries=5, optional=["label"])
    cues = CueBatch({"frames": tiny_batch["cues"].get("frames")})
    with torch.no_grad():
        before, after = model.encoder(cues), add_classes(model, ["oboe"]).encoder(cues)
    assert torch.equal(before.vector, after.vector) and torch.equal(before.index, after.index)


def test_spare_queries_in_front_of_the_one_for_no_label(tiny_model: Any, tiny_batch: dict[str, Any]) -> None:
    model = tiny_model(queries=5, optional=["label"])
    before = masks(model, tiny_batch, [[-1, 1], [2, -1]])
    expanded = add_classes(model, ["oboe"])
    assert torch.equal(masks(expanded, tiny_batch, [[-1, 1], [2, -1]]), before)
    assert expanded.conditioner.query_embed.num_embeddings == 5
    assert add_classes(expanded, ["harp"]).conditioner.query_embed.num_embeddings == 6


@pytest.mark.parametrize("optional", [[], ["label"]])
def test_a_card_of_an_expanded_model_loads(
    tiny_model: Any, tiny_batch: dict[str, Any], tmp_path: Path, optional: list[str]
) -> None:
    expanded = add_classes(tiny_model(queries=4, optional=optional), ["oboe", "harp"])
    write_card(tmp_path / "card", expanded, name="iquery.more")
    loaded = avsep_zoo.load(tmp_path / "card")
    assert loaded.classes == ("cello", "flute", "tuba", "oboe", "harp")
    assert loaded.encoder.gives == expanded.encoder.gives
    labels = [[3, 4], [0, 4]]
    assert torch.equal(masks(loaded, tiny_batch, labels), masks(expanded, tiny_batch, labels))


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "No new class"), (["Cello"], "'Cello' is there already"), (["oboe", "Oboe"], "'Oboe' is there already")],
)
def test_names_that_cannot_be_added(tiny_model: Any, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        add_classes(tiny_model(), names)


def test_a_model_without_class_queries(tiny_model: Any) -> None:
    model = tiny_model()
    model.conditioner = nn.Identity()
    with pytest.raises(CompositionError, match="Identity"):
        add_classes(model, ["oboe"])


def test_training_with_attention_frozen(tiny_model: Any, tiny_batch: dict[str, Any]) -> None:
    """Attention, old queries and old class vectors keep every bit, weight decay or not; the rest learns."""
    model = freeze_for_expansion(add_classes(tiny_model(queries=4, optional=["label"]), ["oboe"]), ["oboe"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, tiny_batch, [[3, 1], [2, 3]])
    after = model.state_dict()
    attention = [name for name in before if "attn" in name]
    assert len(attention) == 4 * (1 + 2 * 2)
    assert all(torch.equal(after[name], before[name]) for name in attention)
    for name in ("conditioner.query_embed.weight", "encoder.class_vectors.weight"):
        assert (after[name] != before[name]).any(dim=1).tolist() == [False, False, False, True, False], name
    for name in ("conditioner.mask_embed.0.weight", "separator.down.0.conv.weight"):
        assert not torch.equal(after[name], before[name]), name


@pytest.mark.parametrize("optional", [[], ["frames"]])
def test_training_the_new_query_alone(tiny_model: Any, tiny_batch: dict[str, Any], optional: list[str]) -> None:
    expanded = add_classes(tiny_model(queries=5, optional=optional), ["oboe"])
    model = freeze_for_expansion(expanded, ["oboe"], frozen="all")
    before = {name: value.clone() for name, value in model.named_parameters()}
    train(model, tiny_batch, [[3, 1], [2, 3]])
    changed = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
    vectors = ["encoder.class_vectors.weight"] if optional else []
    assert changed == [*vectors, "conditioner.query_embed.weight"]
    for name in changed:
        moved = (model.get_parameter(name) != before[name]).any(dim=1)
        assert moved.tolist() == [False, False, False, True, False]


def test_a_trained_query_changes_the_other_classes(tiny_model: Any, tiny_batch: dict[str, Any]) -> None:
    """What the documentation admits: old queries attend to the new one."""
    model = add_classes(tiny_model(queries=5), ["oboe"])
    before = masks(model, tiny_batch)
    with torch.no_grad():
        model.conditioner.query_embed.weight[3] += 1.0
    assert not torch.equal(masks(model, tiny_batch), before)


def test_freezing_survives_a_copy(tiny_model: Any, tiny_batch: dict[str, Any]) -> None:
    model = add_classes(tiny_model(queries=5), ["oboe"])
    before = masks(model, tiny_batch)
    frozen = copy.deepcopy(freeze_for_expansion(model, ["oboe"]))
    torch.testing.assert_close(masks(frozen, tiny_batch), before, rtol=0, atol=1e-6)
    assert frozen.conditioner.query_embed.trained_rows == (3,)


def test_freezing_for_an_unknown_class(tiny_model: Any) -> None:
    with pytest.raises(CueError, match="'oboe'"):
        freeze_for_expansion(tiny_model(), ["oboe"])
