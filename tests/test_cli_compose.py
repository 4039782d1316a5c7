"""``avsep compose``: parts of several methods in one model that a person sees, tries and trains."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import avsep_zoo
from avsep_zoo.cli import app
from avsep_zoo.compose import compose_recipe
from avsep_zoo.errors import CompositionError
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig
from avsep_zoo.training.smoke import fitting_objective, smoke_train
from avsep_zoo.weights.cards import read_card

WORDS = ("--encoder", "bimodal_sep.words", "--conditioner", "iquery.queries", "--separator", "mask_unet")


def avsep(*arguments: object) -> Result:
    """Run a command in this process."""
    settings = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, [str(a) for a in arguments], env=settings, prog_name="avsep")


def sentence(*arguments: object) -> str:
    """Return the one line that ``avsep compose`` ended with, with exit code 1."""
    result = avsep("compose", *arguments)
    assert result.exit_code == 1, result.output
    *_, line = result.stderr.splitlines()
    return line


def row(text: str, start: str) -> list[str]:
    """The cells of a row."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{start} ")]
    return re.split(r"\s{2,}", line.strip())


def test_what_flows_where() -> None:
    """Views and widths, sites and channels, and parameters of each part."""
    text = avsep("compose", *WORDS, "--small").stdout
    assert row(text, "Sound") == ["Sound", "stft", "8191 samples at 8000 Hz become 128 x 128 points"]
    assert row(text, "Cues")[2] == "audio or label or text become vector 8, tokens 8"
    assert row(text, "Meeting") == ["Meeting", "iquery.queries", "vector at latent, head"]
    assert "mask of 2 sources, 2 x 128 x 128" in row(text, "Estimate")[2]
    assert row(text, "head") == ["head", "head", "4", "1", "yes"]
    assert row(text, "bottleneck") == ["bottleneck", "bottleneck", "32", "32"]
    sizes = [int(row(text, slot)[-2].replace(",", "")) for slot in ("encoder", "conditioner", "separator", "all")]
    assert sum(sizes[:3]) == sizes[3] > 0


def test_smoke_training_shows_that_the_loss_falls() -> None:
    """Parts of three methods: texts, queries, a U-Net of the core."""
    result = avsep("compose", *WORDS, "--train-smoke")
    assert result.exit_code == 0, result.output
    told = re.search(r"The loss falls in 20 steps on one made-up batch: (.*)", result.stdout)
    assert told
    losses = [float(loss) for loss in told[1].split(", ")]
    assert len(losses) == 5 and losses[-1] < losses[0]


def test_a_generative_model_and_an_encoder_that_would_fetch_something() -> None:
    """Its views are made up, and it separates by a driver."""
    pytest.importorskip("transformers")
    call = ("--encoder", "bimodal_sep.clap_text", "--conditioner", "tiled_concat", "--separator", "davis.unet")
    result = avsep("compose", *call, "--driver", "flow", "--train-smoke")
    assert result.exit_code == 0, result.output
    assert row(result.stdout, "Loss") == ["Loss", "generative"]
    assert "features of 2 sources" in row(result.stdout, "Estimate")[2]


def test_settings_of_parts() -> None:
    """On top of the small ones, of every slot."""
    sets = ("--set", "separator.mask_features=6", "--set", "front_end.rate=4000")
    text = avsep("compose", *WORDS, "--small", *sets).stdout
    assert row(text, "head")[2] == "6" and "at 4000 Hz" in row(text, "Sound")[2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            ("--encoder", "frames", "--conditioner", "iquery.queries", "--separator", "davis.unet"),
            "The conditioner 'iquery.queries' acts at head, latent and the separator 'davis.unet' has bottleneck; "
            "separators that fit: mask_unet.",
        ),
        (
            ("--encoder", "iquery.cues", "--conditioner", "ial_cms.attention", "--separator", "mask_unet"),
            "wants map and the encoder 'iquery.cues' gives index, vector; encoders that fit: ial_cms.deeplab.",
        ),
        (
            ("--encoder", "frames", "--conditioner", "tiled_concat", "--separator", "davis.unet"),
            "The separator 'davis.unet' needs a driver; give one of diffusion, flow.",
        ),
        ((*WORDS, "--driver", "flow"), "set driven: true in it"),
        (
            ("--encoder", "clap-text", "--conditioner", "tiled_concat", "--separator", "mask_unet"),
            "There is no encoder 'clap-text'; did you mean 'bimodal_sep.clap_text'.",
        ),
        ((*WORDS, "--set", "separator.widht=8"), "has no setting 'widht'; did you mean 'width'."),
        ((*WORDS, "--set", "separator.levels=8"), "The front end gives 128 x 128 points and a U-Net of 8 levels"),
        ((*WORDS, "--objective", "mask"), "There is no objective 'mask'; did you mean 'masks'."),
        ((*WORDS, "--objective", "generative"), "composed has no driver and the generative objective needs one"),
    ],
)
def test_misfits_are_one_sentence(call: tuple[str, ...], message: str) -> None:
    assert message in sentence(*call, "--train-smoke")


@pytest.mark.parametrize("text", ["width=4", "encoder=frames", "driver.steps=1", "separator.name=avsgs.unet"])
def test_settings_that_are_none(text: str) -> None:
    """Of no part, of a part that is not there, or a name, for which there is an option."""
    assert avsep("compose", *WORDS, "--small", "--set", text).exit_code == 2


def test_the_published_weights_an_encoder_starts_from_are_asked_for(tmp_path: Path) -> None:
    """As a training run does; no card of a frozen network with random weights is written."""
    call = ("--encoder", "davis.resnet", "--conditioner", "tiled_concat", "--separator", "avsgs.unet")
    assert "image_weights" in sentence(*call, "-o", tmp_path / "card")
    assert not (tmp_path / "card").exists()


def test_a_card_that_loads_and_trains(tmp_path: Path, tones: Path) -> None:
    """Untrained at first; `avsep train --from` goes on from it, and so does the run itself."""
    card = tmp_path / "words-and queries"
    result = avsep("compose", *WORDS, "--small", "-o", card)
    assert result.exit_code == 0, result.output
    assert read_card(card).name == "composed.words_and_queries"
    model = avsep_zoo.load(card)
    assert model.parts["objective"]["name"] == "masks"
    run = tmp_path / "run"
    settings = ("batch=2", "workers=0", "validation_mixtures=1", "validate_every=1", "precision=no")
    sets = [argument for setting in settings for argument in ("--set", setting)]
    trained = avsep("train", "--from", card, "--data", tones, "-o", run, "--steps", 1, *sets)
    assert trained.exit_code == 0, trained.output
    before, after = model.state_dict(), avsep_zoo.load(run).state_dict()
    assert before.keys() == after.keys() and any(not torch.equal(before[k], after[k]) for k in before)
    assert avsep("train", "-o", run, "--steps", 2).exit_code == 0


def test_composed_parts_have_no_presets(tmp_path: Path, tones: Path) -> None:
    """Since they are of no method."""
    avsep("compose", *WORDS, "--small", "-o", tmp_path / "card")
    result = avsep("train", "--from", tmp_path / "card", "--data", tones, "--preset", "mini", "-o", tmp_path / "run")
    assert result.exit_code == 1 and "is of no method, and has no preset 'mini'" in result.stderr


def test_a_folder_that_is_taken(tmp_path: Path) -> None:
    """Stays as it is."""
    (tmp_path / "mine.txt").write_text("stays")
    assert "is there already and not an empty folder" in sentence(*WORDS, "--small", "-o", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_smoke_training_is_the_same_each_time(tiny_model: SeparationModel, tiny_parts: dict[str, PartConfig]) -> None:
    """And leaves the random numbers of others alone."""
    part, objective = fitting_objective(tiny_model, {}, small=True)
    assert part.name == "masks"
    state = torch.get_rng_state()
    losses = smoke_train(tiny_model, objective, steps=3)
    assert torch.equal(torch.get_rng_state(), state) and not tiny_model.training
    torch.manual_seed(0)
    again = compose_recipe(tiny_parts, "iquery.tiny")
    assert smoke_train(again, fitting_objective(again, {}, small=True)[1], steps=3) == losses


def test_the_objective_of_the_separators_own_method_comes_first(generative_model: SeparationModel) -> None:
    """Where it takes the model; otherwise a generic one."""
    assert fitting_objective(generative_model, {})[0].name == "generative"
    slots = {"encoder": "frames", "conditioner": "tiled_concat", "front_end": "stft"}
    parts = {slot: PartConfig(name) for slot, name in slots.items()}
    avsgs = compose_recipe(parts | {"separator": PartConfig("avsgs.unet", {"width": 4})}, "composed")
    assert fitting_objective(avsgs, {}, small=True)[0].name == "avsgs.co_separation"
    ial = compose_recipe(parts | {"separator": PartConfig("ial_cms.unet", {"width": 4})}, "composed")
    assert fitting_objective(ial, {}, small=True)[0].name == "masks"
    with pytest.raises(CompositionError, match=r"needs the conditioner ial_cms\.attention"):
        fitting_objective(ial, {"name": "ial_cms.independency"})


def test_smoke_training_of_a_broken_model_says_so(tiny_model: SeparationModel) -> None:
    _, objective = fitting_objective(tiny_model, {}, small=True)
    next(tiny_model.separator.parameters()).data.fill_(math.nan)
    with pytest.raises(CompositionError, match=r"The loss of iquery\.tiny is nan in step 1"):
        smoke_train(tiny_model, objective)
    tiny_model.requires_grad_(False)
    with pytest.raises(CompositionError, match=r"All of iquery\.tiny is frozen"):
        smoke_train(tiny_model, objective)
