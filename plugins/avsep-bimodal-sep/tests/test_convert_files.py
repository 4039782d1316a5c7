"""A file in the authors' layout becomes a card whose model gives the official numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import avsep_zoo
from avsep_bimodal_sep.official_keys import CLAP, recognise, target
from avsep_bimodal_sep.parity_method import separated
from avsep_bimodal_sep.plugin import RECIPE
from avsep_zoo import SeparationModel
from avsep_zoo.compose import compose_recipe
from avsep_zoo.errors import WeightsError
from avsep_zoo.parity.case import Case
from avsep_zoo.parity.compare import compare
from avsep_zoo.parity.recipe import fill
from avsep_zoo.registry import registry
from avsep_zoo.weights.conversion import Conversion, convert

POSITIONS = f"{CLAP}text_branch.embeddings.position_ids"  # of files that older versions of transformers wrote
SMALL = {"vocab_size": 300, "intermediate_size": 32, "num_hidden_layers": 1, "max_position_embeddings": 80}
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def layout(golden: Callable[[str], Case]) -> State:
    """All entries of an official file in their shapes, one number each, which is all that is saved of it."""
    entries = golden("train_objective").spec["weights"]["parts"]["model"]
    state = {key: torch.zeros((), dtype=getattr(torch, dtype)).expand(shape) for key, shape, dtype in entries}
    return state | {POSITIONS: torch.arange(514)[None]}


def saved(path: Path, state: State) -> Path:
    """As the official training saves a run, with what belongs to it besides."""
    wrapped = {f"module.{key}": value for key, value in state.items()}
    optimiser = torch.optim.Adam([torch.zeros(2, requires_grad=True)]).state_dict()
    scheduler = {"step_size": 15, "gamma": 0.1, "last_epoch": 7, "_last_lr": [np.float64(1e-4)]}
    history = {"train": {"epoch": [0.5], "err": [0.1]}, "val": {"sdr": [np.float32(7.9)], "epoch": [np.int64(2)]}}
    rest = {"epoch": 7, "best_sdr": np.float64(7.9), "optimizer": optimiser, "scheduler": scheduler}
    torch.save({"state_dict": wrapped, **rest, "history": history}, path)
    return path


@pytest.fixture(scope="module")
def case(golden: Callable[[str], Case]) -> Case:
    return golden("separate_mixture")


@pytest.fixture(scope="module")
def state(case: Case, layout: State) -> State:
    """The published separator by the recipe of the case, and a text tower of one layer."""
    given, settings = case.state_dicts["model"], recognise(layout)
    with torch.device("meta"):
        model = compose_recipe(RECIPE.parts("audiocaps") | {"encoder": small_text()}, "bimodal_sep.case")
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    official = {}
    for key, value in layout.items():
        name = target(key, settings)
        if name is None or key in given:
            official[key] = given.get(key, value)
        elif name in shapes:
            official[key] = torch.from_numpy(fill(key, shapes[name]))
    return official


def small_text() -> avsep_zoo.PartConfig:
    return RECIPE.encoder.changed({"tower": SMALL, "length": 70})


@pytest.fixture(scope="module")
def done(state: State, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Conversion]:
    """The file, converted to a variant of the recipe that differs from the published ones as the case does."""
    folder = tmp_path_factory.mktemp("run")
    short = {"encoder": dict(small_text().config), "front_end": {"length": 32767}}
    entry = registry().get("method", "bimodal_sep")
    recipe = dataclasses.replace(RECIPE, variants={**RECIPE.variants, "short": short})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry().entries, ("method", "bimodal_sep"), dataclasses.replace(entry, target=recipe))
        yield convert("bimodal_sep.short", [saved(folder / "model_best.pth.tar", state)], folder / "card")


@pytest.fixture(scope="module")
def model(done: Conversion) -> SeparationModel:
    return avsep_zoo.load(done.card.folder)


def test_the_card_gives_the_official_numbers(model: SeparationModel, case: Case) -> None:
    """Every output of the whole method is within its tolerance, by the weights of the card."""
    errors = compare(case, separated(model, case))
    assert len(errors) == 4 and all(error.passed for error in errors), [e for e in errors if not e.passed]


def test_every_entry_has_one_place(done: Conversion, model: SeparationModel, state: State) -> None:
    """Or is a constant, a norm that is never applied, or CLAP's sound tower or one of its heads."""
    settings, weights = recognise(state), model.state_dict()
    places = {key: target(key, settings) for key in state}
    assert all(torch.equal(weights[name], state[key]) for key, name in places.items() if name is not None)
    assert done.card.name == "bimodal_sep.short" and done.used == len(weights)
    left = {name.removeprefix("model.") for name in done.unused}
    assert len(done.unused) == len(left) == len(state) - done.used and POSITIONS in left
    kinds = ("stft.", "istft.", "net_sound.", f"{CLAP}audio_", f"{CLAP}text_transform.", f"{CLAP}logit_scale_")
    assert all(name.startswith(kinds) for name in left - {POSITIONS})
    assert sum(name.startswith("net_sound.") for name in left) == 6


def test_the_file_does_not_say_of_which_data_set_it_is(tmp_path: Path, layout: State) -> None:
    """All of its entries are those of the three published variants."""
    file = saved(tmp_path / "model_weights.pth.tar", layout)
    three = r"bimodal_sep\.audiocaps and bimodal_sep\.music and bimodal_sep\.vggsound alike; say which"
    with pytest.raises(WeightsError, match=three):
        convert("bimodal_sep", [file], tmp_path / "card")
    assert not (tmp_path / "card").exists()


def test_clap_alone_is_no_checkpoint(tmp_path: Path, layout: State) -> None:
    """The file of LAION that the method starts from."""
    state = {key.removeprefix(CLAP): value for key, value in layout.items() if key.startswith(CLAP)}
    file = saved(tmp_path / "music_audioset_epoch_15_esc_90.14.pt", state)
    with pytest.raises(WeightsError, match=r"90\.14\.pt' holds nothing of bimodal_sep"):
        convert("bimodal_sep.audiocaps", [file], tmp_path / "card")
