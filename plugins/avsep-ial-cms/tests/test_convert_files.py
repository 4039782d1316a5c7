"""A checkpoint as Lightning writes it becomes a card whose model gives the official numbers; takes about 20 s."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import avsep_zoo
from avsep_ial_cms.convert import CONVERTER
from avsep_ial_cms.parity_method import heard
from avsep_zoo.errors import WeightsError
from avsep_zoo.parity.case import Case, load_case
from avsep_zoo.parity.compare import compare
from avsep_zoo.weights.cards import file_sha256
from avsep_zoo.weights.checkpoints import read_content
from avsep_zoo.weights.conversion import Conversion, convert

pytestmark = pytest.mark.filterwarnings("ignore::avsep_zoo.errors.LicenceWarning")  # nobody states one
CASES = Path(__file__).parents[3] / "tests" / "parity" / "ial_cms"
CLASSES = {"pytorch_lightning.utilities.parsing": "AttributeDict",
           "pytorch_lightning.callbacks.model_checkpoint": "ModelCheckpoint"}  # fmt: skip
NAME = "sdr11.86_sir17.3_sar15.2_state_dict.ckpt"


@pytest.fixture(scope="module")
def case() -> Case:
    found = load_case(CASES / "e2e_sup.json")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def checkpoint(
    case: Case, constants: Callable[[int], dict[str, Tensor]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The network of a golden case."""
    file = tmp_path_factory.mktemp("run") / NAME
    save(case.state_dicts["checkpoint"] | constants(1022), file)
    yield file
    file.unlink()


def save(state: dict[str, Tensor], file: Path) -> None:
    """As Lightning saves a run: what its versions from 1.4 to 2.5 keep beside the state dict, classes among them."""
    made: dict[str, Any] = {}
    modules: dict[str, ModuleType] = {}
    for place, name in CLASSES.items():
        parts = place.split(".")
        modules |= {at: ModuleType(at) for n in range(len(parts)) if (at := ".".join(parts[: n + 1])) not in modules}
        made[name] = type(name, (dict,), {"__module__": place})
        setattr(modules[place], name, made[name])
    attributes = made["AttributeDict"]
    progress = {"total": {"ready": 4, "completed": 4}, "current": {"ready": 2, "completed": 2}}
    kept = {"best_model_score": torch.tensor(11.86), "best_model_path": f"runs/{NAME}", "dirpath": "runs"}
    content = {
        "epoch": 7,
        "global_step": 1234,
        "pytorch-lightning_version": "1.9.5",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": progress}, "validate_loop": {"state_dict": {}}},
        "callbacks": {made["ModelCheckpoint"]: kept, "ModelCheckpoint{'monitor': 'sdr'}": kept},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [0]}]}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "args": argparse.Namespace(batch_size=8, train_on_3mix=False),
            "opt": attributes(loss=attributes(lambda_ind=0.0), train_critics=False),
        },
    }
    before = {name: module for name, module in sys.modules.items() if name in modules}
    sys.modules.update(modules)
    try:
        torch.save(content, file)
    finally:
        for name in modules:
            del sys.modules[name]
        sys.modules.update(before)


@pytest.fixture(scope="module")
def done(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Conversion]:
    conversion = convert("ial_cms.supervised", [checkpoint], tmp_path_factory.mktemp("cards") / "card")
    yield conversion
    conversion.card.weights.unlink()


def test_a_checkpoint_gives_the_official_numbers(done: Conversion, case: Case) -> None:
    """Every output of the whole method is within its tolerance, through the model of the card."""
    errors = compare(case, heard(avsep_zoo.load(done.card.folder), case))
    assert errors and all(error.passed for error in errors), [error for error in errors if not error.passed]


def test_what_the_card_says(done: Conversion, checkpoint: Path) -> None:
    """Which file it was made of; entries that are not used are the critic's and constants."""
    assert done.card.name == "ial_cms.supervised"
    assert [(file.name, file.part, file.sha256) for file in done.files] == [
        (NAME, "checkpoint", file_sha256(checkpoint))
    ]
    assert len(done.unused) + done.used == 421
    assert sum("stftLayer" in name for name in done.unused) == 5
    assert sum(name.startswith("objective.critic.") for name in done.unused) == len(done.unused) - 5 == 28
    assert done.card.manifest["converted"]["unused"] == 33


def test_which_training_it_was_has_to_be_said(checkpoint: Path, tmp_path: Path) -> None:
    """Supervised or not, the entries are the same."""
    match = r"fit ial_cms\.supervised and ial_cms\.unsupervised alike; say which .* 'avsep convert ial_cms\.supervised'"
    with pytest.raises(WeightsError, match=match):
        convert("ial_cms", [checkpoint], tmp_path / "card")
    assert not (tmp_path / "card").exists()


def test_nothing_of_lightning_is_needed(tmp_path: Path) -> None:
    """Nor imported; without the list of names the file is refused by them."""
    file = tmp_path / "last.ckpt"
    save({"net_wrapper.av_separator.separator_w_v.bias": torch.zeros(1)}, file)
    loaded = set(sys.modules)
    content = read_content(file, allowed=CONVERTER.allowed)
    assert content["hyper_parameters"] == {"args": {}, "opt": {"loss": {"lambda_ind": 0.0}, "train_critics": False}}
    assert not [name for name in set(sys.modules) - loaded if "lightning" in name]
    with pytest.raises(WeightsError, match=r"asks for argparse\.Namespace, pytorch_lightning\.\S+ModelCheckpoint, "):
        read_content(file)


def test_other_files(tmp_path: Path) -> None:
    """A critic alone, a separator with an entry of another network, and one that is not whole."""
    critic, bias = "net_wrapper.critics.critics_model.b", "net_wrapper.av_separator.separator_w_v.bias"
    for state, match in (
        ({critic: torch.zeros(1)}, r"a\.ckpt' holds nothing of ial_cms; its parts are checkpoint"),
        ({bias: torch.zeros(1), "net_wrapper.fc.weight": torch.zeros(1)}, r"The entry fc\.weight is none of ial_cms's"),
        ({bias: torch.zeros(1), critic: torch.zeros(1)}, r"files lack conditioner\.\S+, .* of ial_cms\.supervised"),
        ({bias: torch.zeros(1), critic: torch.tensor([torch.nan])}, r"becomes objective\.critic\.bias holds numbers"),
    ):
        save(state, tmp_path / "a.ckpt")
        with pytest.raises(WeightsError, match=match) as error:
            convert("ial_cms.supervised", [tmp_path / "a.ckpt"], tmp_path / "card")
        assert re.fullmatch(r"[^\n]+\.", str(error.value)) and ". " not in str(error.value)
