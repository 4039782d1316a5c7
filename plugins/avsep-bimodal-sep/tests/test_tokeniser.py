"""RoBERTa's tokeniser, with a vocabulary of bytes and three merges."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import re
from pathlib import Path

import pytest
from huggingface_hub import constants

from avsep_bimodal_sep.tokeniser import BEGIN, END, PADDING, TOKENISER, Tokeniser
from avsep_zoo.errors import CueError, WeightsError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HOSTILE = ["", " ", "dog", " dog  dogs\n\t", "a" * 10_000, "\N{DOG FACE}\u200d\N{FIRE} naïve", "\0", "don't; 3.5 kHz"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``vocab.json`` and ``merges.txt``."""
    from tokenizers.pre_tokenizers import ByteLevel

    words = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), "og", "dog", "Ġdog", "<mask>"]
    path = tmp_path / "roberta"
    path.mkdir()
    (path / "vocab.json").write_text(json.dumps({word: row for row, word in enumerate(words)}))
    (path / "merges.txt").write_text("#version: 0.2\no g\nd og\nĠ dog\n")
    return path


def read(folder: Path, size: int = 300) -> Tokeniser:
    return Tokeniser(str(folder), size=size)


@pytest.mark.parametrize("text", HOSTILE)
def test_ids_are_those_of_transformers(folder: Path, text: str) -> None:
    """Marks, padding and cutting included."""
    from transformers import RobertaTokenizer

    theirs = RobertaTokenizer.from_pretrained(folder)
    wanted = theirs(text, padding="max_length", max_length=20, truncation=True)["input_ids"]
    assert read(folder).rows([text], 20)[0].tolist() == wanted


def test_marks_in_a_text_are_characters(folder: Path) -> None:
    """A text cannot end itself, or be padding."""
    ids = read(folder).ids("</s><pad><s>")
    assert len(ids) == 12 and not {BEGIN, PADDING, END} & set(ids)


def test_copies_work(folder: Path) -> None:
    """Workers get a copy, before the first use or after it."""
    tokeniser = read(folder)
    for twin in (pickle.loads(pickle.dumps(tokeniser)), copy.deepcopy(tokeniser)):
        assert twin.ids("dog") == tokeniser.ids("dog")
    assert pickle.loads(pickle.dumps(tokeniser)).ids("dogs") == tokeniser.ids("dogs")


def test_a_text_that_is_no_unicode(folder: Path) -> None:
    with pytest.raises(CueError, match=r"^The text .* is no valid Unicode"):
        read(folder).ids("a dog \ud800")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", "{", "cannot be read"),
        ("vocab.json", '{"<s>": 5, "o": 0, "g": 1, "og": 2, "d": 3, "dog": 4, "Ġ": 6, "Ġdog": 7}', "has marks"),
        ("vocab.json", "[]", "cannot be read"),
        ("merges.txt", "o g\nx", "cannot be read"),
    ],
)
def test_files_that_are_no_vocabulary(folder: Path, name: str, content: str, message: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(WeightsError, match=rf"^The vocabulary in .*{message}.*setting tokenizer\.$"):
        read(folder).ids("dog")


def test_a_vocabulary_larger_than_the_table(folder: Path) -> None:
    """Found when the files are read, not as an index error in the tower."""
    with pytest.raises(WeightsError, match=r"has marks .* and 264 entries, the text tower .* and 263"):
        read(folder, size=263).ids("dog")


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=rf"has no {name} here; .* setting tokenizer\.$"):
        read(folder).ids("dog")


def test_nothing_is_read_before_the_first_text() -> None:
    """A model with a tokeniser that is not there can be built and loaded."""
    tokeniser = Tokeniser("no/such/folder", size=300)
    with pytest.raises(WeightsError, match="tokenizer files 'no/such/folder' do not exist"):
        tokeniser.ids("dog")


def test_the_published_one_is_pinned() -> None:
    name, _, commit = TOKENISER.partition("@")
    assert name == "FacebookAI/roberta-base" and len(commit) == 40


class TestHub:
    """The client's cache, as after a download; offline."""

    @pytest.fixture(autouse=True)
    def cache(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The two files are there, the weights of the same repository are not."""
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        storage = tmp_path / "cache" / "models--someone--roberta"
        snapshot = storage / "snapshots" / COMMIT
        for path in (storage / "blobs", storage / "refs", storage / "trees", snapshot):
            path.mkdir(parents=True)
        tree = {"model.safetensors": {"size": 5 * 10**8, "blob_id": "0" * 40, "lfs_sha256": "0" * 64}}
        tree["model.safetensors"]["lfs_size"] = 5 * 10**8
        for file in folder.iterdir():
            content = file.read_bytes()
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            (storage / "blobs" / blob).write_bytes(content)
            (snapshot / file.name).symlink_to(f"../../blobs/{blob}")
            tree[file.name] = {"size": len(content), "blob_id": blob}
        (storage / "refs" / "main").write_text(COMMIT)
        (storage / "trees" / f"{COMMIT}.json").write_text(json.dumps({"format_version": 1, "files": tree}))
        return storage

    def test_weights_are_not_wanted(self, folder: Path) -> None:
        """The vocabulary is read though half a gigabyte beside it is not in the cache."""
        assert Tokeniser(f"someone/roberta@{COMMIT}", size=300).ids("dog") == read(folder).ids("dog")

    def test_changed_content_is_refused(self, cache: Path) -> None:
        merges = (cache / "snapshots" / COMMIT / "merges.txt").resolve()
        merges.write_bytes(merges.read_bytes() + b"d o\n")
        with pytest.raises(WeightsError, match=r"merges\.txt of someone/roberta@0123456 was changed"):
            Tokeniser(f"someone/roberta@{COMMIT}", size=300).ids("dog")

    def test_not_cached(self) -> None:
        """One sentence says what to do."""
        with pytest.raises(WeightsError) as caught:
            Tokeniser(f"someone/other@{COMMIT}", size=300).ids("dog")
        told = r"someone/other@0123456 is not complete in the cache .*; .*give a folder with the files \(the encoder's "
        assert re.fullmatch(rf"{told}setting tokenizer\)\.", str(caught.value))
