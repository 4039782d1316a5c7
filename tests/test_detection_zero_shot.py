"""Zero-shot detection with OWLv2 and Grounding DINO: tiny random models in the Hub's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers

from avsep_zoo.cli.cue_detections import Surroundings
from avsep_zoo.compose import compose_recipe
from avsep_zoo.cue import Cue
from avsep_zoo.data.detections import Detections
from avsep_zoo.detection.zero_shot import ZeroShot
from avsep_zoo.errors import WeightsError
from avsep_zoo.recipe import PartConfig
from avsep_zoo.synth.files import write_mp4

transformers: Any = pytest.importorskip("transformers")

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 40, 60, 3), np.uint8)


@pytest.fixture(scope="module")
def owl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OWLv2 of 6 by 6 patches whose tokenizer knows every letter."""
    folder = tmp_path_factory.mktemp("weights") / "owl"
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Owlv2Config(
        text_config={"vocab_size": len(words), "max_position_embeddings": 16, **sizes},
        vision_config={"image_size": 48, "patch_size": 8, **sizes},
        projection_dim=8,
    )
    config.text_config.eos_token_id = len(words) - 1
    torch.manual_seed(0)
    transformers.Owlv2ForObjectDetection(config).save_pretrained(folder)
    tokenizer = transformers.CLIPTokenizer({word: i for i, word in enumerate(words)}, [], model_max_length=16)
    images = transformers.Owlv2ImageProcessor(size={"height": 48, "width": 48})
    transformers.Owlv2Processor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Grounding DINO with a small Swin, a small BERT and a vocabulary of six words."""
    folder = tmp_path_factory.mktemp("weights") / "dino"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "cello", "tuba", "acoustic", "guitar", "drum", "##s"]
    vision = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=2,
        out_features=["stage1", "stage2"],
    )  # fmt: skip
    text = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    config = transformers.GroundingDinoConfig(
        backbone_config=vision, text_config=text, d_model=32, encoder_layers=1, decoder_layers=2, num_queries=9,
        encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2,
        num_feature_levels=3, max_text_len=12, disable_custom_kernels=True,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    tokenizer = transformers.BertTokenizer({word: i for i, word in enumerate(words)})
    images = transformers.GroundingDinoImageProcessor(size={"shortest_edge": 32, "longest_edge": 64})
    transformers.GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["owl", "dino"])
def test_rows_of_every_frame(kind: str, request: pytest.FixtureRequest) -> None:
    """Every frame gets rows class, score, box: known classes, best first, boxes inside the picture."""
    detector = ZeroShot(request.getfixturevalue(kind), labels=["cello", "acoustic_guitar"], min_score=0.01)
    found = detector.detect(FRAMES)
    assert len(found) == len(FRAMES) and all(len(rows) for rows in found)
    rows = np.concatenate(found)
    assert rows.dtype == np.float32 and rows.shape[1] == 6
    assert set(rows[:, 0]) <= {1, 2} and (rows[:, 1] > 0.01).all()
    assert (rows[:, 2:4] >= 0).all() and (rows[:, 4] <= 60).all() and (rows[:, 5] <= 40).all()
    assert (rows[:, 4:] > rows[:, 2:4]).all()
    assert all((np.diff(one[:, 1]) <= 0).all() for one in found)


@pytest.mark.parametrize("kind", ["owl", "dino"])
def test_batches_do_not_change_a_frame(kind: str, request: pytest.FixtureRequest) -> None:
    """A frame is seen alike alone and in a batch."""
    detector = ZeroShot(request.getfixturevalue(kind), labels=["cello", "tuba"], min_score=0.01)
    np.testing.assert_allclose(detector.detect(FRAMES)[4], detector.detect(FRAMES[4:])[0], atol=1e-3)


@pytest.mark.parametrize("kind", ["owl", "dino"])
def test_a_score_that_nothing_reaches(kind: str, request: pytest.FixtureRequest) -> None:
    """Frames without a detection give arrays without rows."""
    detector = ZeroShot(request.getfixturevalue(kind), labels=["cello"], min_score=1.0)
    assert [rows.shape for rows in detector.detect(FRAMES[:2])] == [(0, 6), (0, 6)]


def test_dino_scores_are_those_of_its_own_processor(dino: Path) -> None:
    """Scores of one label are the best words of the library's own result, whose boxes are the same."""
    detector = ZeroShot(dino, labels=["acoustic_guitar"], min_score=0.01)
    processor, model = detector._processor, detector._model
    inputs = processor(images=list(FRAMES[:1]), text=["acoustic guitar."], return_tensors="pt")
    with torch.inference_mode():
        out = model(**inputs)
    theirs = processor.post_process_grounded_object_detection(out, threshold=0.01, target_sizes=[FRAMES.shape[1:3]])[0]
    boxes = theirs["boxes"].clamp(min=torch.zeros(4), max=torch.tensor([60.0, 40, 60, 40])).numpy()
    rows = detector.detect(FRAMES[:1])[0]
    distance = np.abs(rows[:, None, 2:] - boxes[None]).max(-1)
    assert len(rows) and (distance.min(axis=1) < 1e-3).all()
    assert (rows[:, 1] <= theirs["scores"].numpy()[distance.argmin(axis=1)] + 1e-6).all()


def test_dino_reads_many_labels_in_several_prompts(dino: Path) -> None:
    """Labels beyond the model's 12 tokens go into further prompts; every token has its label."""
    detector = ZeroShot(dino, labels=["cello", "tuba", "acoustic_guitar", "drums", "cello tuba drum guitar"])
    prompts = detector._prompts
    assert [first for first, _, _ in prompts] == [0, 4]
    assert prompts[0][1] == "cello. tuba. acoustic guitar. drums."
    assert prompts[0][2] == [-1, 0, -1, 1, -1, 2, 2, -1, 3, 3, -1, -1]


def test_dino_refuses_a_label_too_long(dino: Path) -> None:
    """A label that no prompt can hold is named."""
    with pytest.raises(WeightsError, match="longer than the model reads"):
        ZeroShot(dino, labels=["cello", "tuba " * 20])


@pytest.mark.parametrize("labels", [[], ["cello", " "], ["_"]])
def test_labels_are_needed(owl: Path, labels: list[str]) -> None:
    """Without labels, or with an empty one, there is nothing to look for."""
    with pytest.raises(WeightsError, match="--labels"):
        ZeroShot(owl, labels=labels)


def test_weights_are_needed() -> None:
    """There is no default model."""
    with pytest.raises(WeightsError, match="--detector-weights"):
        ZeroShot(None, labels=["cello"])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model_type": "llama"}'])
def test_other_models_are_refused(tmp_path: Path, content: str) -> None:
    """A folder whose config.json names no known detector is refused."""
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(WeightsError, match=r"model_type|type 'llama'"):
        ZeroShot(tmp_path, labels=["cello"])


def test_lacking_tensors_are_refused(owl: Path, tmp_path: Path) -> None:
    """Weights without some tensors are not filled up at random."""
    from safetensors.torch import load_file, save_file

    for file in owl.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(owl / "model.safetensors")
    tensors.pop("class_head.dense0.weight")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"lack 1 tensors, the first is 'class_head\.dense0\.weight'"):
        ZeroShot(tmp_path, labels=["cello"])


def test_pickled_weights_are_not_read(owl: Path, tmp_path: Path) -> None:
    """A folder with a pickle instead of safetensors is refused."""
    for file in owl.iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        ZeroShot(tmp_path, labels=["cello"])


def test_truncated_weights_are_refused(owl: Path, tmp_path: Path) -> None:
    """Half a file is an error in one sentence."""
    for file in owl.iterdir():
        content = file.read_bytes()
        (tmp_path / file.name).write_bytes(content if file.suffix == ".json" else content[: len(content) // 2])
    with pytest.raises(WeightsError, match="cannot be loaded"):
        ZeroShot(tmp_path, labels=["cello"])
    assert json.loads((owl / "config.json").read_text())["model_type"] == "owlv2"


def test_cues_are_looked_for_with_what_is_around_them(owl: Path, tmp_path: Path) -> None:
    """For 'avsep separate' a detector by text finds the classes of the cues and of their context, without features."""
    parts = {
        "encoder": PartConfig("avsgs.crops", {"width": 4, "image_size": 32, "reduced": 4, "features": 16}),
        "conditioner": PartConfig("avsgs.scene_graph", {"hidden": 8, "width": 16, "heads": 2}),
        "separator": PartConfig("avsgs.unet", {"width": 4, "levels": 5}),
        "front_end": PartConfig("stft", {"rate": 8000, "length": 8191, "n_fft": 254, "hop_length": 64}),
    }
    write_mp4(tmp_path / "a.mp4", np.repeat(FRAMES, 4, axis=0), np.zeros(110250, np.float32))
    asked = Surroundings(
        tmp_path / "a.mp4", detector="zero_shot", weights=str(owl), min_score=0.01, context=("acoustic guitar",)
    )
    cues, notes = asked.add_to([Cue(label="cello", box=(0, 0, 9, 9))], None, compose_recipe(parts, "avsgs.tiny"), "cpu")
    found = cues[0].detections
    assert isinstance(found, Detections) and notes == []
    assert found.names == ("cello", "acoustic guitar") and set(found.frames) == {1, 2} and found.features is None
