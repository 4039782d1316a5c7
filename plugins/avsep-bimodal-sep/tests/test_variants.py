"""Every variant of the recipe: its size as it is published, and all of it at work when made small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import avsep_zoo
from avsep_bimodal_sep.plugin import NAMING, OTHER, RECIPE
from avsep_zoo.compose import build_part, compose_recipe
from avsep_zoo.cue import Cue
from avsep_zoo.data.clip import Clip
from avsep_zoo.data.collate import collate
from avsep_zoo.load import find_card
from avsep_zoo.recipe import PartConfig
from avsep_zoo.synth.captions import words
from avsep_zoo.training.config import TrainingConfig
from avsep_zoo.training.items import training_items

PUBLISHED = ("audiocaps", "music", "vggsound")


def small_mini() -> dict[str, PartConfig]:
    """The parts of ``mini`` with narrow layers, and short segments of 32 x 32 points."""
    small: dict[str, dict[str, Any]] = {
        "encoder": {"width": 8, "heads": 2, "ear": 2},
        "conditioner": {"heads": 2},
        "separator": {"width": 2, "mask_features": 3},
        "front_end": {"rate": 8000, "length": 2047, "n_fft": 126, "hop_length": 64, "warp_rows": 32},
    }
    return {slot: part.changed(small.get(slot, {})) for slot, part in RECIPE.parts("mini").items()}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_published_sizes(variant: str) -> None:
    """The U-Net with its attention, and the mask head: 32 weights of features, an offset, and what makes them."""
    parts = RECIPE.parts(variant)
    with torch.device("meta"):
        separator = build_part("separator", parts["separator"], widths={"head": 1})
        conditioner = build_part(
            "conditioner", parts["conditioner"], views={"vector": 512, "tokens": 768}, sites=separator.sites
        )
    head = sum(p.numel() for p in conditioner.heads.parameters())
    unused = 3 * 2 * 512  # layer norms that the official file has and nothing applies
    counted = sum(p.numel() for part in (separator, conditioner) for p in part.parameters())
    assert head == 32 + 1 + 512 * 32 + 32
    assert counted - head + unused == 87_681_250


def test_published_segments_fit_the_network() -> None:
    front: Any = build_part("front_end", RECIPE.parts("audiocaps")["front_end"])
    assert front.analyse(torch.zeros(1, front.length)).features.shape == (1, 1, 512, 512)


def test_targets_of_music_and_vggsound_are_divided_in_place() -> None:
    settings = {variant: RECIPE.parts(variant)["objective"].config.get("in_place", False) for variant in PUBLISHED}
    assert settings == {"audiocaps": False, "music": True, "vggsound": True}


def test_the_vocabulary_is_that_of_the_captions() -> None:
    """Every word that the generator's captions have, and no other."""
    assert words() == (NAMING, OTHER)


@pytest.mark.parametrize("members", [1, 2])
def test_a_step_of_training(members: int, tmp_path: Path) -> None:
    """Of solos, and of duets among solos: every parameter that takes part gets a gradient."""
    clips = []
    rng = np.random.default_rng(0)
    for name in ("cello", "flute", "tuba", "violin", "cello+flute", "tuba+violin", "cello+tuba"):
        for take in range(2):
            file = tmp_path / f"{name}{take}.wav"
            soundfile.write(file, 0.1 * rng.standard_normal(8000), 8000)
            clips.append(Clip(f"{name}/{take}", file, labels=tuple(name.split("+"))))
    parts = small_mini()
    model, objective = compose_recipe(parts, "bimodal_sep.small"), build_part("objective", parts["objective"])
    config = TrainingConfig(steps=1, batch=2, members=members, solos=0.5 if members > 1 else 0.0)
    items = training_items(model, clips, config, captioned=True)
    model.train()
    losses = objective.loss(model, collate([items[0], items[1]]))
    losses["loss"].backward()
    assert set(losses) == {"loss", "separation", "alignment"} and all(
        torch.isfinite(value) for value in losses.values()
    )
    still = [name for name, p in model.named_parameters() if p.grad is None and not name.startswith("encoder.ear.")]
    assert not still


def test_a_separation_by_texts() -> None:
    """A stem for each text, named by it; texts, labels and examples go together."""
    model = compose_recipe(small_mini(), "bimodal_sep.small")
    sound = 0.1 * np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    cues = [Cue(text="a cello sings"), Cue(label="flute"), Cue(audio=sound, audio_rate=8000, name="like this")]
    result = model.separate(sound, cues, rate=8000)
    assert [stem.name for stem in result.tracks] == ["a cello sings", "flute", "like this", "residual"]
    assert np.allclose(sum(stem.waveform for stem in result.tracks), sound, atol=1e-5)
    assert [note.partition(":")[2] for note in result.notes] == [" by text.", " by label.", " by audio."]


def test_hub_and_load_know_the_method() -> None:
    assert avsep_zoo.methods()["bimodal_sep"].variant_names == ("audiocaps", "music", "vggsound", "mini")


@pytest.mark.parametrize("variant", PUBLISHED)
def test_a_published_configuration_has_a_card_to_convert_to(variant: str) -> None:
    """With the parts of the recipe, and no weights."""
    card = find_card(f"bimodal_sep.{variant}")
    assert card.manifest["parts"] == {slot: part.to_dict() for slot, part in RECIPE.parts(variant).items()}
    assert card.sha256 is None and f"avsep convert bimodal_sep.{variant} --checkpoint" in card.text
