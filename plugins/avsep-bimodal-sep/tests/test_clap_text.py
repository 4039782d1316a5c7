"""CLAP's text tower as a cue encoder, small."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from avsep_bimodal_sep.clap_text import ClapTextEncoder
from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.errors import CompositionError, CueError, WeightsError

SMALL = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "projection_dim": 8,
}


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    """A folder with a vocabulary of bytes and one merge."""
    from tokenizers.pre_tokenizers import ByteLevel

    words = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), "og"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: row for row, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\no g\n")
    return str(tmp_path)


def small(tokenizer: str = "none", **settings: Any) -> ClapTextEncoder:
    """An encoder whose random weights are large enough that texts differ."""
    encoder = ClapTextEncoder(**{"tokenizer": tokenizer, "tower": SMALL, "length": 12, **settings})
    with torch.no_grad():
        for weight in encoder.clap.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return encoder.eval()


def texts(*rows: list[int]) -> torch.Tensor:
    """Token ids (M, 12): marks around each row, padding behind."""
    return torch.tensor([[0, *row, 2, *[1] * (10 - len(row))] for row in rows])


def calls(encoder: ClapTextEncoder) -> list[int]:
    """How many texts go through the tower at a time; grows as it is called."""
    seen: list[int] = []
    encoder.clap.register_forward_hook(lambda *a: seen.append(len(a[2].text_embeds)))
    return seen


def prepared(encoder: ClapTextEncoder, *cues: Cue) -> CueBatch:
    return encoder.prepare(cues, video=None, time=0.0)


def test_fetching_reads_the_tokenizer(tokenizer: str) -> None:
    """Before the first text comes, and only once; without a tokenizer it says so."""
    encoder = small(tokenizer)
    encoder.fetch()
    Path(tokenizer, "vocab.json").unlink()
    assert prepared(encoder, Cue(text="fog")).get("token_ids").shape == (1, 1, 12)
    with pytest.raises(WeightsError, match="tokenizer"):
        small().fetch()


def test_views_and_their_width() -> None:
    """The vector has length 1; tokens are there at all positions, those of padding included, without a bias."""
    encoder = small()
    embedding = encoder(CueBatch({"token_ids": texts([5], [6, 7], [8], [9]).reshape(2, 2, 12)}))
    assert embedding.vector is not None and embedding.tokens is not None
    assert embedding.vector.shape == (2, 2, 8) and embedding.tokens.shape == (2, 2, 12, 16)
    assert encoder.gives == {"vector": 8, "tokens": 16} and embedding.tokens_bias is None
    assert torch.allclose(embedding.vector.norm(dim=-1), torch.ones(2, 2))


def test_views_are_those_of_the_tower() -> None:
    """Padding is masked within it, and what is there at padded positions is kept."""
    encoder, ids = small(), texts([5, 6, 7], [8])
    out = encoder.clap(input_ids=ids, attention_mask=(ids != 1).long())
    vectors, tokens = encoder.embed(ids)
    assert torch.allclose(vectors, torch.nn.functional.normalize(out.text_embeds, dim=-1), atol=1e-6)
    assert torch.allclose(tokens, out.last_hidden_state, atol=1e-6)


def test_a_text_is_the_same_alone() -> None:
    encoder, ids = small(), texts([5, 6, 7], [8], [9, 10])
    together, alone = encoder.embed(ids), copy.deepcopy(encoder).embed(ids[1:2])
    assert all(torch.allclose(a[1:2], b, atol=1e-6) for a, b in zip(together, alone, strict=True))


def test_text_label_or_both(tokenizer: str) -> None:
    """A label is a prompt; the text wins."""
    encoder = small(tokenizer, length=38)
    ids = prepared(
        encoder,
        Cue(text="The sound of bass clarinet"),
        Cue(label="bass_clarinet"),
        Cue(text="dog", label="bass_clarinet"),
        Cue(text="dog"),
    )
    rows = ids.values["token_ids"]
    assert rows.shape == (1, 4, 38) and rows.dtype == torch.int64
    assert torch.equal(rows[0, 0], rows[0, 1]) and torch.equal(rows[0, 2], rows[0, 3])
    assert ids.has("text").tolist() == [[True, False, True, True]]
    assert ids.has("label").tolist() == [[False, True, False, False]]
    assert encoder.optional == {"text", "label"} == encoder.reads and encoder.per_clip


def test_cues_of_several_mixtures_stack(tokenizer: str) -> None:
    encoder = small(tokenizer)
    batch = CueBatch.stack([prepared(encoder, Cue(text="dog")), prepared(encoder, Cue(label="a"))])
    vector = encoder(batch).vector
    assert vector is not None and vector.shape == (2, 1, 8)


@pytest.mark.parametrize(
    ("cue", "message"),
    [
        (Cue(text=""), r"says ''; say in words"),
        (Cue(text=" \n", label="dog"), r"say in words"),
        (Cue(label=""), r"says ''"),
        (Cue(text=7), r"says 7"),  # type: ignore[arg-type]
        (Cue(audio="dog.wav"), "has neither a text nor a label"),
        (Cue(text="dog \udcff"), "no valid Unicode"),
    ],
)
def test_cues_that_say_nothing(tokenizer: str, cue: Cue, message: str) -> None:
    with pytest.raises(CueError, match=message):
        prepared(small(tokenizer), cue)


@pytest.mark.parametrize("text", ["x" * 10_000, "\N{DOG FACE}" * 30, "</s><pad><mask>", "\0"])
def test_strange_texts(tokenizer: str, text: str) -> None:
    """They are read as far as they fit."""
    encoder = small(tokenizer)
    batch = prepared(encoder, Cue(text=text))
    assert batch.values["token_ids"].shape == (1, 1, 12)
    embedding = encoder(batch)
    assert embedding.vector is not None and embedding.vector.isfinite().all()


def test_what_is_cut_off_is_said(tokenizer: str) -> None:
    encoder = small(tokenizer)
    remarks = encoder.remarks([Cue(text="a dog that barks"), Cue(text="dog"), Cue(audio="dog.wav")])
    assert remarks == ["a dog that barks: the text has 15 tokens, of which the first 10 were read."]


def test_a_batch_without_texts() -> None:
    with pytest.raises(CueError, match="needs a text or a label"):
        small()(CueBatch({"frames": torch.zeros(1, 1)}))


def test_equal_texts_are_embedded_once() -> None:
    """Within a batch, and in later ones."""
    encoder, ids = small(), texts([5], [6], [5], [5])
    seen = calls(encoder)
    first, again = encoder.embed(ids), encoder.embed(ids.flip(0))
    other = encoder.embed(texts([6], [7]))
    assert seen == [2, 1]
    assert all(torch.equal(a, b.flip(0)) for a, b in zip(first, again, strict=True))
    assert torch.equal(other[0][0], first[0][1])


def test_what_is_remembered_is_what_is_computed() -> None:
    """Bit for bit, for a batch of the same texts."""
    encoder, ids = small(), texts([5, 9], [6], [7, 8])
    free = copy.deepcopy(encoder)
    free.clap.requires_grad_(True)  # remembers nothing
    encoder.embed(ids)
    assert all(torch.equal(a, b) for a, b in zip(encoder.embed(ids), free.embed(ids), strict=True))


@pytest.mark.parametrize("change", ["load", "in place", "dtype", "back"])
def test_other_weights_forget(change: str) -> None:
    encoder, ids = small(), texts([5], [6])
    before, seen = encoder.embed(ids)[0], calls(encoder)
    if change == "load":
        encoder.load_state_dict({name: value * 1.5 for name, value in encoder.state_dict().items()})
    elif change == "in place":
        with torch.no_grad():
            encoder.clap.get_parameter("text_projection.linear2.bias").add_(1.0)
    elif change == "dtype":
        encoder.to(torch.float64)
    else:
        encoder.bfloat16()
        assert encoder.embed(ids)[0].dtype == torch.bfloat16
        encoder.float()
    after = encoder.embed(ids)[0]
    assert seen[-1] == 2 and after.dtype == (torch.float64 if change == "dtype" else torch.float32)
    assert not torch.equal(before.double(), after.double())


def test_what_a_test_remembers_can_be_trained_with() -> None:
    """Texts that are first embedded in inference mode take part in a backward pass later."""
    encoder, ids = small(), texts([5], [6])
    layer = torch.nn.Linear(16, 3)
    with torch.inference_mode():
        encoder.embed(ids.clone())
    seen = calls(encoder)
    layer(encoder.embed(ids)[1]).sum().backward()
    assert not seen and layer.weight.grad is not None


def test_training_remembers_nothing() -> None:
    """What a text was computed beside would depend on the steps before, and a run that goes on has had none."""
    encoder, ids = small(), texts([5], [6], [5])
    encoder.embed(ids)
    seen = calls(encoder.train())
    for _ in range(2):
        assert not encoder.embed(ids)[0].requires_grad
    assert seen == [2, 2]
    assert len(encoder.eval().remembered) == 2


def test_other_precisions_are_remembered_apart() -> None:
    encoder, ids = small(), texts([5])
    exact, seen = encoder.embed(ids)[1], calls(encoder)
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(encoder.embed(ids)[1].float(), exact)
    assert seen == [1] and torch.equal(encoder.embed(ids)[1], exact) and seen == [1]


def test_a_tower_that_learns_is_always_asked() -> None:
    encoder, ids = small(), texts([5], [5])
    encoder.clap.requires_grad_(True)
    seen = calls(encoder)
    for _ in range(2):
        encoder.embed(ids)[0].sum().backward()
    weight = encoder.clap.get_parameter("text_projection.linear2.weight")
    assert seen == [1, 1] and weight.grad is not None and weight.grad.abs().sum() > 0


def test_memory_is_bounded() -> None:
    """The text that was used longest ago is forgotten first, and each owns its memory."""
    encoder = small()
    encoder.remembered.size = 2
    seen = calls(encoder)
    for row in ([5], [6], [5], [7], [5], [6]):
        encoder.embed(texts(row))
    assert len(seen) == 4 and len(encoder.remembered) == 2
    encoder.embed(texts([8], [9]))
    views = encoder.remembered.get((None, texts([8]).numpy().tobytes()))
    assert views is not None and [v.untyped_storage().nbytes() for v in views] == [4 * 8, 4 * 12 * 16]


def test_copies_remember_nothing() -> None:
    """Nor do cards."""
    encoder = small()
    names = set(encoder.state_dict())
    encoder.embed(texts([5]))
    twins = (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder)))
    assert len(encoder.remembered) == 1 and [len(twin.remembered) for twin in twins] == [0, 0]
    assert set(encoder.state_dict()) == names and all(name.startswith("clap.text_") for name in names)
    assert not any("_ids" in name for name in names)
    assert all(torch.equal(twin.embed(texts([5]))[0], encoder.embed(texts([5]))[0]) for twin in twins)


def test_the_tower_stays_in_eval_mode() -> None:
    encoder = small().train()
    assert encoder.training and not any(module.training for module in encoder.clap.modules())
    assert not any(weight.requires_grad for weight in encoder.parameters())


def test_the_published_length_and_widths() -> None:
    assert ClapTextEncoder.plan().gives == {"vector": 512, "tokens": 768}
    assert small(tower={**SMALL, "max_position_embeddings": 79}, length=77).length == 77


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 2}, "has 2 tokens; give 3 to 38"),
        ({"length": 39}, "has 39 tokens; give 3 to 38"),
        ({"tower": {"depth": 3}}, "no size 'depth'; it has vocab_size"),
        ({"tower": {"hidden_size": 0}}, "hidden_size is 0; give a whole number above 0"),
        ({"tower": {"hidden_size": [8]}}, "hidden_size is"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**settings)


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    message = r"^bimodal_sep\.clap_text needs transformers; install it: pip install transformers tokenizers\.$"
    with pytest.raises(CompositionError, match=message):
        small()
