"""What a training run does with bad files, other data, and folders that are no run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from avsep_zoo.compose import compose, compose_recipe
from avsep_zoo.errors import DataError
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig
from avsep_zoo.training.config import TrainingConfig
from avsep_zoo.training.items import parts_of_steps, read_lists, training_items, validation_items
from avsep_zoo.training.loop import train

Make = Callable[..., SeparationModel]


@pytest.fixture
def make(tiny_parts: dict[str, PartConfig]) -> Make:
    """A function that makes the tiny model with random weights and changed settings of the conditioner."""

    def build(**conditioner: Any) -> SeparationModel:
        part = tiny_parts["conditioner"]
        parts = {**tiny_parts, "conditioner": PartConfig(part.name, {**part.config, **conditioner})}
        torch.manual_seed(0)
        return compose_recipe(parts, "iquery.tiny")

    return build


@pytest.fixture
def data(tones: Path, tmp_path: Path) -> Path:
    """A copy of the lists and sounds of the tones."""
    to = tmp_path / "data"
    for path in [*tones.glob("*.csv"), *tones.glob("audio/*/*.wav")]:
        target = to / path.relative_to(tones)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return to


def config(**change: Any) -> TrainingConfig:
    small: dict[str, Any] = {"steps": 1, "batch": 2, "validation_mixtures": 2, "validate_first": False, "workers": 0}
    return TrainingConfig.from_mapping({**small, **change})


def skipped(run: Path) -> dict[str, str]:
    """What a run left out: where -> why."""
    entries = [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]
    assert len({entry["where"] for entry in entries}) == len(entries)
    return {entry["where"]: entry["why"] for entry in entries}


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_file_is_skipped_and_reported_once(make: Make, data: Path, tmp_path: Path, workers: int) -> None:
    """Also by a data-loading process, and by a run that goes on."""
    (data / "audio/flute/a.wav").write_bytes(b"no sound")
    run = train(make(), data, tmp_path / "run", config(steps=6, workers=workers))
    train(make(), data, run, config(steps=12, workers=workers))
    assert list(skipped(run)) == ["flute/a"]
    assert f"The sound '{data}/audio/flute/a.wav' cannot be read" in skipped(run)["flute/a"]


@pytest.mark.parametrize("workers", [0, 1])
def test_class_without_a_usable_file_ends_the_run_in_one_sentence(
    make: Make, data: Path, tmp_path: Path, workers: int
) -> None:
    """What was learned before stays."""
    for name in ("a", "b"):
        (data / f"audio/flute/{name}.wav").write_bytes(b"no sound")
    with pytest.raises(DataError) as caught:
        train(make(), data, tmp_path / "run", config(steps=20, validate_every=1, workers=workers))
    message = str(caught.value)
    assert message.startswith("None of 2 clips of flute can be used") and "\n" not in message
    steps = [json.loads(line)["step"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert not steps or torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["state"]["step"] == steps[-1]


def test_bad_row_is_reported(make: Make, data: Path, tmp_path: Path) -> None:
    with (data / "train.csv").open("a") as rows:
        rows.write("/../../secret/a.wav,/x/a.mp4,2\n")
    run = train(make(), data, tmp_path / "run", config())
    (where,) = skipped(run)
    assert "train" in where and "leads out of the data folder" in skipped(run)[where]


def test_bad_validation_file_is_skipped(make: Make, data: Path, tmp_path: Path) -> None:
    """Its mixtures give way to others."""
    (data / "audio/flute/c.wav").write_bytes(b"")
    run = train(make(), data, tmp_path / "run", config(validation_mixtures=20))
    assert skipped(run) and all("flute/c" in where for where in skipped(run))
    record = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert record["validation_sdr"] is not None


def test_broken_validation_set_shows_before_the_first_step(make: Make, data: Path, tmp_path: Path) -> None:
    for path in data.glob("audio/*/c.wav"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="None of the 2 validation mixtures can be used; the last one: "):
        train(make(), data, tmp_path / "run", config(validate_first=True))
    assert (tmp_path / "run/log.jsonl").read_text() == ""


def test_class_the_model_does_not_know(make: Make, data: Path, tmp_path: Path) -> None:
    (data / "audio/tuba").mkdir()
    (data / "audio/tuba/a.wav").write_bytes((data / "audio/drum/a.wav").read_bytes())
    (data / "train.csv").write_text("/tuba/a.wav,/tuba/a.mp4,2\n/drum/a.wav,/drum/a.mp4,2\n")
    with pytest.raises(
        DataError, match=r"has classes that iquery\.tiny does not know: tuba; add them with --add-class"
    ):
        train(make(), data, tmp_path / "run", config())


def test_other_data_is_refused(make: Make, data: Path, tmp_path: Path) -> None:
    """A moved folder is the same data; a list with another clip is not."""
    run = train(make(), data, tmp_path / "run", config())
    moved = data.rename(tmp_path / "moved")
    train(make(), moved, run, config(steps=2))
    with (moved / "train.csv").open("a") as rows:
        rows.write("/drum/c.wav,/drum/c.mp4,2\n")
    with pytest.raises(DataError, match="was started with other training data; choose another one"):
        train(make(), moved, run, config(steps=3))


def test_folders_that_are_no_run_of_this_model(make: Make, tones: Path, tmp_path: Path) -> None:
    run = train(make(), tones, tmp_path / "run", config())
    with pytest.raises(DataError, match="was started with other parts or settings of them"):
        train(make(dropout=0.5), tones, run, config())
    checkpoint = run / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"The checkpoint in .* cannot be used"):
        train(make(), tones, run, config())

    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").write_text("Chapter 1")
    (tmp_path / "file").write_text("")
    for wrong in ("home", "file"):
        with pytest.raises(DataError, match="neither an empty folder nor a training run"):
            train(make(), tones, tmp_path / wrong, config())
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.tex"]


def test_data_that_cannot_be_used_leaves_no_run(make: Make, data: Path, tmp_path: Path) -> None:
    bare = {slot: part for slot, part in make().parts.items() if slot != "objective"}
    with pytest.raises(DataError, match="composed has no objective"):
        train(compose(**bare), data, tmp_path / "run", config())  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no list 'trian'"):
        train(make(), data, tmp_path / "run", config(train_split="trian"))
    (data / "val.csv").write_text("/drum/c.wav,/drum/c.mp4,2\n")
    with pytest.raises(DataError, match="The 1 clips for validation have too few classes"):
        train(make(), data, tmp_path / "run", config())
    assert not (tmp_path / "run").exists()


def test_data_without_a_list_for_validation(data: Path) -> None:
    """A tenth of the clips of each class is held out of training, always the same."""
    for label in ("drum", "flute"):
        with (data / "train.csv").open("a") as rows:
            rows.writelines(f"/{label}/{n}.wav,/{label}/{n}.mp4,2\n" for n in range(20))
    (data / "val.csv").unlink()
    lists = read_lists(data, None, config())
    trained, validated = ({clip.id for clip in clips} for clips in (lists.train, lists.validation))
    assert len(trained) + len(validated) == 46 and not trained & validated
    assert {clip.label for clip in lists.validation} >= {"drum", "flute"}
    assert read_lists(data, None, config()) == lists
    assert read_lists(data, "music", config(validation_split="train")).identity != lists.identity


def test_processes_share_the_mixtures_of_a_step(make: Make, tones: Path) -> None:
    """Together they take what one takes, in equal parts, from any step on; a batch that does not divide is refused."""
    model, settings = make(), config(steps=4, batch=8)
    items = training_items(model, read_lists(tones, None, settings).train, settings)

    def parts(process: int, processes: int, **change: Any) -> list[torch.Tensor]:
        batches = parts_of_steps(items, config(steps=4, batch=8, **change), 2, process=process, processes=processes)
        return [batch["sources"] for batch in batches]

    whole = parts(0, 1)
    assert len(whole) == 2
    first, second = parts(0, 2, accumulate=2), parts(1, 2, accumulate=2)
    shared = torch.cat([half for pair in zip(first, second, strict=True) for half in pair])
    assert torch.equal(shared, torch.cat(whole))
    with pytest.raises(DataError, match="batch of 8 mixtures cannot be shared by 3 processes in 1 parts each"):
        parts(0, 3)


def test_cues_are_prepared_by_the_mode(make: Make, tones: Path) -> None:
    """This encoder reads frames beside a label only to learn what they show: in training, never in validation."""
    model, settings = make(), config(steps=3)
    lists = read_lists(tones, None, settings)
    training = training_items(model, lists.train, settings)
    validation = validation_items(model, lists.validation, settings)
    for mode in (True, False):
        model.train(mode)
        assert all(training[n]["cues"].get("frames") is not None for n in range(6))
        assert all(validation[n]["cues"].get("frames") is None for n in range(2))


def test_items_can_be_handed_to_any_process(make: Make, tones: Path) -> None:
    """Pickled, as data-loading processes that are spawned get them, they give the same mixtures."""
    settings = config(steps=3)
    items = training_items(make(), read_lists(tones, None, settings).train, settings)
    copy = pickle.loads(pickle.dumps(items))
    assert len(copy) == 6 and torch.equal(copy[5]["sources"], items[5]["sources"])
    assert torch.equal(copy[5]["cues"].get("frames"), items[5]["cues"].get("frames"))


def test_validation_mixtures_have_no_class_in_common(make: Make, tones: Path) -> None:
    settings = config(validation_mixtures=7, sources=3)
    items = validation_items(make(), read_lists(tones, None, settings).validation, settings)
    assert len(items) == 7
    for clips in items.mixtures.mixtures:
        assert {clip.label for clip in clips} == {"violin", "flute", "drum"}


def test_duets_alone_are_validated_as_recordings(tmp_path: Path, tiny_parts: dict[str, PartConfig]) -> None:
    """Learning from mixtures only needs no solo: two duets are mixed, and each is scored as the sum of its sounds."""
    tiny_parts["encoder"].config["classes"] = ["violin", "flute", "drum", "horn"]  # type: ignore[index]
    tiny_parts["conditioner"].config["queries"] = 5  # type: ignore[index]
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for pair in ("violin+flute", "drum+horn"):
            folder = tmp_path / "data" / split / pair
            folder.mkdir(parents=True)
            for take in range(2):
                soundfile.write(folder / f"{take}.wav", rng.uniform(-0.4, 0.4, 9000), 8000)
    settings = config(members=2, steps=2, validate_every=2)
    run = train(compose_recipe(tiny_parts, "iquery.tiny"), tmp_path / "data", tmp_path / "run", settings)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log if record.get("validation_sdr") is not None] == [2]
    lists = read_lists(tmp_path / "data", None, settings)
    item = validation_items(compose_recipe(tiny_parts, "iquery.tiny"), lists.validation, settings)[0]
    assert len(item["sources"]) == 2 and item["cues"].shape == (1, 4)
    with pytest.raises(DataError, match="too few classes"):
        validation_items(compose_recipe(tiny_parts, "iquery.tiny"), lists.validation, config(members=1))
