"""Low-rank adapters: where they go, what they train, what is left of them on export."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import avsep_zoo
from avsep_zoo.compose import build_part
from avsep_zoo.contracts import CueBatch
from avsep_zoo.errors import AvsepError, DataError
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig
from avsep_zoo.training.freeze import freeze, train_mode
from avsep_zoo.training.lora import add_adapters, merged
from avsep_zoo.weights.cards import write_card

pytest.importorskip("peft")


def train(model: SeparationModel, cues: CueBatch, steps: int = 3) -> set[str]:
    """Train on noise with the objective's optimisers; names of the entries that are not what they were."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    objective = build_part("objective", PartConfig.parse(model.parts["objective"]))
    optimisers = objective.optimisers(model, learning_rate=1e-2)["model"]
    batch = {"sources": torch.randn(2, 3, 8191, generator=torch.Generator().manual_seed(3)), "cues": cues}
    train_mode(model)
    for _ in range(steps):
        loss = objective.loss(model, batch)["loss"]
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


@torch.no_grad()
def masks(model: SeparationModel, cues: CueBatch) -> Tensor:
    mixture = torch.randn(2, 8191, generator=torch.Generator().manual_seed(4))
    return model.eval()({"mixture": mixture, "cues": cues}).values


def adapted(model: nn.Module) -> set[str]:
    return {name.partition(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A." in name}


def test_an_untrained_adapter_changes_no_output(tiny_model: SeparationModel, tiny_cues: CueBatch) -> None:
    before = masks(tiny_model, tiny_cues)
    add_adapters(tiny_model, {"r": 2})
    torch.testing.assert_close(masks(tiny_model, tiny_cues), before, rtol=0, atol=1e-6)


def test_adapters_go_on_linear_layers_and_convolutions_outside_attention(tiny_model: SeparationModel) -> None:
    wanted = {
        name
        for name, module in tiny_model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and "attn" not in name and getattr(module, "dilation", 1) != (2, 2)
    }
    add_adapters(tiny_model, {"r": 2})
    assert adapted(tiny_model) == wanted
    assert {"conditioner.mask_embed.0", "separator.down.0.conv", "encoder.fc"} < wanted
    frames = torch.rand(1, 2, 3, 1, 64, 64)
    assert tiny_model.encoder(CueBatch({"frames": frames})).vector.shape[:2] == (1, 2)


def test_training_moves_only_adapters(tiny_model: SeparationModel, tiny_cues: CueBatch) -> None:
    """Not even a statistic of a batch norm."""
    add_adapters(tiny_model, {"r": 2, "alpha": 4, "dropout": 0.1})
    changed = train(tiny_model, tiny_cues)
    assert changed and all(".lora_" in name for name in changed)


def test_merged_gives_what_the_adapters_gave(tiny_model: SeparationModel, tiny_cues: CueBatch, tmp_path: Path) -> None:
    """An ordinary model with the keys it had before, and the adapted one stays adapted."""
    before, keys = masks(tiny_model, tiny_cues), list(tiny_model.state_dict())
    add_adapters(tiny_model, {"r": 2, "alpha": 4})
    train(tiny_model, tiny_cues, steps=5)
    after = masks(tiny_model, tiny_cues)
    assert (after - before).abs().max() > 1e-3
    plain = merged(tiny_model)
    assert list(plain.state_dict()) == keys and not hasattr(plain, "peft_config") and not plain.frozen
    torch.testing.assert_close(masks(plain, tiny_cues), after, rtol=0, atol=1e-5)
    assert adapted(tiny_model) and torch.equal(masks(tiny_model, tiny_cues), after)
    loaded = avsep_zoo.load(write_card(tmp_path / "merged", plain).folder)
    assert torch.equal(masks(loaded, tiny_cues), masks(plain, tiny_cues))


def test_a_card_loads_without_peft(tiny_model: SeparationModel, tmp_path: Path) -> None:
    add_adapters(tiny_model, {})
    folder = write_card(tmp_path / "merged", merged(tiny_model)).folder
    code = f"import sys; sys.modules['peft'] = None; import avsep_zoo; avsep_zoo.load({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path.cwd())


def test_a_model_without_adapters_is_merged_already(tiny_model: SeparationModel, tiny_cues: CueBatch) -> None:
    plain = merged(tiny_model)
    assert plain is not tiny_model and torch.equal(masks(plain, tiny_cues), masks(tiny_model, tiny_cues))


@pytest.mark.parametrize(
    ("targets", "layers"),
    [
        (["conditioner.mask_embed"], {f"conditioner.mask_embed.{k}" for k in (0, 2, 4)}),
        (["separator.down.*.conv", "encoder.fc"], {*(f"separator.down.{k}.conv" for k in range(5)), "encoder.fc"}),
    ],
)
def test_targets_by_name(tiny_model: SeparationModel, targets: list[str], layers: set[str]) -> None:
    add_adapters(tiny_model, {"r": 2, "targets": targets})
    assert adapted(tiny_model) == layers


def test_frozen_parts_get_no_adapter(tiny_model: SeparationModel) -> None:
    freeze(tiny_model, ["separator", "encoder"])
    add_adapters(tiny_model, {"r": 2})
    assert {name.partition(".")[0] for name in adapted(tiny_model)} == {"conditioner"}


def test_layers_that_cannot_be_merged_get_none(tiny_model: SeparationModel) -> None:
    """Grouped, dilated and mirroring convolutions, and weights that are computed."""
    settings: list[dict[str, Any]] = [{"groups": 4}, {"dilation": 2}, {"padding": 1, "padding_mode": "reflect"}]
    convolutions = [nn.Conv2d(4, 4, 3, **setting) for setting in settings]
    computed = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    tiny_model.separator.extra = nn.ModuleList([*convolutions, computed])
    add_adapters(tiny_model, {"r": 4})
    assert not any("extra" in name for name in adapted(tiny_model))


def test_new_classes_are_trained_beside_adapters(tiny_model: SeparationModel, tiny_cues: CueBatch) -> None:
    from avsep_iquery.expand import add_classes

    model = add_classes(tiny_model, ["harp"])
    add_adapters(model, {"r": 2, "targets": ["conditioner.mask_embed"]})
    changed = train(model, CueBatch({**tiny_cues.values, "label": torch.tensor([[3, 1, 2], [2, 0, 3]])}))
    plain = {name for name in changed if ".lora_" not in name}
    assert plain == {"conditioner.query_embed.weight", "encoder.class_vectors.weight"} and plain < changed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 4}, "no setting 'rank'; they have r, alpha, dropout, targets"),
        ({"r": 0}, "setting r is 0"),
        ({"r": 2.5}, r"setting r is 2\.5"),
        ({"r": "8"}, "setting r is '8'"),
        ({"r": True}, "setting r is True"),
        ({"alpha": 0}, "setting alpha is 0"),
        ({"dropout": 1.0}, r"setting dropout is 1\.0"),
        ({"dropout": float("nan")}, "setting dropout is nan"),
        ({"targets": "separator"}, "setting targets is 'separator'"),
        ({"targets": []}, r"setting targets is \[\]"),
        ({"targets": ["separator", "decoder"]}, "called 'decoder'; there are .*conditioner.mask_embed.0"),
        ({"targets": ["*attn*"]}, r"called '\*attn\*'"),
    ],
)
def test_settings_that_cannot_be(tiny_model: SeparationModel, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        add_adapters(tiny_model, settings)
    assert all(p.requires_grad for p in tiny_model.parameters()) and not adapted(tiny_model)


def test_everything_frozen_or_adapted_already(tiny_model: SeparationModel) -> None:
    add_adapters(tiny_model, {"targets": ["encoder.fc"]})
    with pytest.raises(DataError, match="adapters already"):
        add_adapters(tiny_model, {})
    model = merged(tiny_model)
    freeze(model, ["all"])
    with pytest.raises(DataError, match="freeze less"):
        add_adapters(model, {})


def test_peft_is_not_installed(tiny_model: SeparationModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(AvsepError, match=r"pip install peft"):
        add_adapters(tiny_model, {})
