"""Weights of a card: where they are looked for, what is asked of the Hub, and what is kept."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

import avsep_zoo
from avsep_zoo.errors import WeightsError
from avsep_zoo.testing.loopback_hub import LoopbackHub
from avsep_zoo.weights.cards import Card, file_sha256, pin_card, read_card
from avsep_zoo.weights.download import find_weights, read_weights, remote_card, weights_file, weights_state

FETCH = """
import sys
from pathlib import Path
from avsep_zoo.weights.cards import read_card
from avsep_zoo.weights.download import weights_file
assert weights_file(read_card(Path(sys.argv[1]))).is_file()
assert "torch" not in sys.modules
"""


def on_hub(hub: LoopbackHub) -> tuple[str, bytes]:
    """The commit of the only repository, and its weights."""
    ((commit, files),) = hub.repos["someone/tiny"].commits.items()
    return commit, files["model.safetensors"]


def test_weights_are_downloaded_once(hub: LoopbackHub, card_on_hub: Card) -> None:
    """One download of the pinned file; from then on no request at all."""
    commit, content = on_hub(hub)
    found = find_weights(card_on_hub)
    assert found.source == "Hub" and found.path.read_bytes() == content
    address = f"/someone/tiny/resolve/{commit}/model.safetensors"
    assert hub.requests == [f"HEAD {address}", f"HEAD {address}", f"GET {address}"]
    hub.requests.clear()
    assert find_weights(card_on_hub) == (found.path, "cache")
    assert hub.requests == []


def test_load_downloads(hub: LoopbackHub, card_on_hub: Card, tiny_model: avsep_zoo.SeparationModel) -> None:
    """The model is the one that was published."""
    loaded = avsep_zoo.load(card_on_hub.folder).state_dict()
    assert all((loaded[name] == value).all() for name, value in tiny_model.state_dict().items())


def test_what_is_cached_needs_no_hub(hub: LoopbackHub, card_on_hub: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the client is told to stay offline."""
    weights_file(card_on_hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_weights(card_on_hub).source == "cache"


def test_what_lies_beside_the_card_comes_first(hub: LoopbackHub, card_on_hub: Card) -> None:
    """Nothing is asked of anybody."""
    card_on_hub.weights.write_bytes(on_hub(hub)[1])
    assert find_weights(card_on_hub, mirror="https://nowhere.invalid") == (card_on_hub.weights, "here")
    assert hub.requests == []


def test_a_wrong_file_beside_the_card_stays(hub: LoopbackHub, card_on_hub: Card) -> None:
    """It is the user's; it is neither taken, nor replaced, nor removed."""
    wrong = b"x" * int(card_on_hub.manifest["bytes"])
    card_on_hub.weights.write_bytes(wrong)
    with pytest.raises(WeightsError, match="its card says otherwise; do not use it, fetch it again"):
        weights_file(card_on_hub)
    assert card_on_hub.weights.read_bytes() == wrong and hub.requests == []


def test_large_files_from_elsewhere(hub: LoopbackHub, card_on_hub: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect of the Hub is followed, without the token of the user."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.token, hub.cdn = "hf_secret", True
    assert weights_file(card_on_hub).read_bytes() == on_hub(hub)[1]
    assert hub.requests[-1] == f"CDN GET /blobs/{card_on_hub.sha256}"


def test_private_weights(hub: LoopbackHub, card_on_hub: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is logged in gets what is theirs."""
    hub.token, hub.repos["someone/tiny"].private = "hf_secret", True
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert weights_file(card_on_hub).read_bytes() == on_hub(hub)[1]


def test_nothing_on_stdout(hub: LoopbackHub, card_on_hub: Card, capfd: pytest.CaptureFixture[str]) -> None:
    """Scripts own it."""
    weights_file(card_on_hub)
    assert capfd.readouterr().out == ""


def test_two_processes_download_once(hub: LoopbackHub, card_on_hub: Card) -> None:
    """The second waits for the first, and takes what that one fetched."""
    hub.gate = threading.Event()
    command = [sys.executable, "-c", FETCH, str(card_on_hub.folder)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    hub.wait_until(lambda requests: sum(request.startswith("HEAD") for request in requests) == 4)
    hub.wait_until(lambda requests: any(request.startswith("GET") for request in requests))
    hub.gate.set()
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in both]
    assert ends == [("", 0), ("", 0)]
    assert sum(request.startswith("GET") for request in hub.requests) == 1


def test_states(hub: LoopbackHub, card_on_hub: Card) -> None:
    """On the Hub, cached, here; none of this is asked of the Hub."""
    assert weights_state(card_on_hub) == "on the Hub" and hub.requests == []
    content = weights_file(card_on_hub).read_bytes()
    assert weights_state(card_on_hub) == "cached"
    card_on_hub.weights.write_bytes(content)
    assert weights_state(card_on_hub) == "here"


def test_states_without_the_hub(card: Path) -> None:
    """Weights that the user converts, and such as are lost."""
    whole = read_card(card)
    whole.weights.unlink()
    assert weights_state(whole) == "missing"
    nothing = {name: value for name, value in whole.manifest.items() if name not in ("file", "bytes", "sha256")}
    assert weights_state(replace(whole, manifest=nothing)) == "to convert"


def test_a_card_from_the_hub(hub: LoopbackHub, card_on_hub: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """Card and weights come from one commit, and stay here."""
    spec = f"someone/tiny@{on_hub(hub)[0]}"
    fetched = remote_card(spec)
    assert (fetched.name, fetched.origin, weights_state(fetched)) == (card_on_hub.name, spec, "on the Hub")
    assert find_weights(fetched).source == "Hub" and weights_state(fetched) == "cached"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert len(read_weights(remote_card(spec))) > 10 and hub.requests == []


def test_a_card_from_the_hub_has_the_weights_beside_it(hub: LoopbackHub, card_on_hub: Card) -> None:
    """Where its README says another place, as that of a new version may, its own commit counts."""
    elsewhere = hub.add_repo("someone/old", {"model.safetensors": b"old"})
    readme = pin_card(card_on_hub, "someone/old", elsewhere).folder / "README.md"
    commit = hub.commit("someone/tiny", {"README.md": readme.read_bytes()})
    path = weights_file(remote_card(f"someone/tiny@{commit}"))
    assert file_sha256(path) == card_on_hub.sha256


@pytest.mark.parametrize("revision", ["", "@main", "@MAIN", "@0123456"])
def test_a_card_without_a_commit(hub: LoopbackHub, card_on_hub: Card, revision: str) -> None:
    """The sentence has the address to copy, where the Hub knows the name."""
    known = revision in ("", "@main")
    wanted = f"write hf://someone/tiny@{on_hub(hub)[0]}, where main is now" if known else "40 hexadecimal digits"
    with pytest.raises(WeightsError, match=wanted):
        remote_card(f"someone/tiny{revision}")


def test_a_card_that_is_not_there(hub: LoopbackHub) -> None:
    """A name that the Hub does not know, and a model of somebody else."""
    with pytest.raises(WeightsError, match="The Hub has no model someone/nothing that you may see"):
        remote_card("someone/nothing")
    commit = hub.add_repo("someone/net", {"model.safetensors": b"weights"})
    with pytest.raises(WeightsError, match=r"someone/net@.* has no file README\.md"):
        remote_card(f"someone/net@{commit}")
    commit = hub.commit("someone/net", {"README.md": b"# Net\n"})
    with pytest.raises(WeightsError, match="has no front matter; a weights card has YAML"):
        remote_card(f"someone/net@{commit}")


def test_a_changed_card_in_the_cache(hub: LoopbackHub, card_on_hub: Card) -> None:
    """A card names the hash of its weights, so its own content is checked too."""
    spec = f"someone/tiny@{on_hub(hub)[0]}"
    readme = remote_card(spec).folder / "README.md"
    readme.write_text(readme.read_text().replace("iquery.tiny", "iquery.evil"))
    with pytest.raises(WeightsError, match=r"README\.md of someone/tiny@.* was changed"):
        remote_card(spec)
    assert remote_card(spec).name == "iquery.tiny"


@pytest.mark.parametrize("spec", ["", "tiny", "a/b/c", "../x@main", "a b/c"])
def test_no_names_of_cards(hub: LoopbackHub, spec: str) -> None:
    """Refused before anybody is asked."""
    with pytest.raises(WeightsError, match=r"do not exist|40 hexadecimal digits"):
        remote_card(spec)
    assert hub.requests == []


def test_bundled_weights_need_no_client(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card with its weights works without the package that speaks to the Hub; another one names the package."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert find_weights(read_card(card)).source == "here"
    (card / "model.safetensors").unlink()
    pinned = pin_card(read_card(card), "someone/tiny", "0" * 40)
    assert weights_state(pinned) == "on the Hub"
    with pytest.raises(WeightsError, match=r"needs the package huggingface_hub, .* run 'pip install huggingface-hub'"):
        weights_file(pinned)
