"""What goes wrong between a card and the Hub: one sentence each that says what to do, and nothing wrong is kept."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from avsep_zoo.errors import WeightsError
from avsep_zoo.testing.loopback_hub import LoopbackHub
from avsep_zoo.weights.cards import Card, pin_card
from avsep_zoo.weights.download import weights_file
from avsep_zoo.weights.hub_errors import hub_errors

TRY = """
import sys
from pathlib import Path
from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.cards import read_card
from avsep_zoo.weights.download import weights_file
try:
    weights_file(read_card(Path(sys.argv[1])))
except WeightsError as error:
    print(error)
"""


def sentence(card: Card) -> str:
    """What a failed download says."""
    with pytest.raises(WeightsError) as caught:
        weights_file(card)
    said = str(caught.value)
    assert said.endswith(".") and "\n" not in said and len(said) < 400
    return said


def blobs() -> list[Path]:
    """All contents in the client's cache, whole or not."""
    return [path for path in Path(constants.HF_HUB_CACHE).glob("*/blobs/*") if path.is_file()]


def in_a_process(card: Card, before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Try it in a process of its own, after ``before``."""
    command = [sys.executable, "-c", before + TRY, str(card.folder)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client does not wait before it tries again."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def test_offline(hub: LoopbackHub, card_on_hub: Card) -> None:
    """The variable that forbids it is named; nothing is tried."""
    said = in_a_process(card_on_hub, HF_HUB_OFFLINE="1").stdout
    assert re.match(r"someone/tiny@\w{7} is not complete in the cache and HF_HUB_OFFLINE .*unset it and connect", said)
    assert hub.requests == []


def test_unreachable(hub: LoopbackHub, card_on_hub: Card) -> None:
    """Nobody listens there; the client's retries, which take 23 seconds, are not waited for."""
    done = in_a_process(card_on_hub, HF_ENDPOINT="http://127.0.0.1:9")
    assert re.match(
        r"someone/tiny@\w{7} is not complete in the cache and http://127\.0\.0\.1:9 cannot be reached \(.*\); connect "
        r"once, or take the card together with its weights \(iquery\.tiny\)\.",
        done.stdout,
    )
    assert "Retrying" not in done.stderr


def test_gated(hub: LoopbackHub, card_on_hub: Card) -> None:
    """The user has to consent first."""
    hub.repos["someone/tiny"].gated = True
    assert "someone/tiny asks for your consent on the Hub; give it" in sentence(card_on_hub)


@pytest.mark.parametrize("private", [False, True])
def test_missing_repository(hub: LoopbackHub, card_on_hub: Card, private: bool) -> None:
    """Strangers are told the same of what is not there and of what is private."""
    if private:
        hub.token, hub.repos["someone/tiny"].private = "hf_secret", True
    else:
        hub.repos.clear()
    assert "The Hub has no model someone/tiny that you may see; check the name, or log in" in sentence(card_on_hub)


def test_wrong_revision(hub: LoopbackHub, card_on_hub: Card) -> None:
    assert f"someone/tiny has no commit {'0' * 40}" in sentence(pin_card(card_on_hub, "someone/tiny", "0" * 40))


def test_missing_file(hub: LoopbackHub, card_on_hub: Card) -> None:
    commit = hub.commit("someone/tiny", {"model.safetensors": None})
    said = sentence(pin_card(card_on_hub, "someone/tiny", commit))
    assert f"someone/tiny@{commit[:7]} has no file model.safetensors; check name and commit" in said


def test_a_wrong_token(hub: LoopbackHub, card_on_hub: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub refuses even what is public."""
    hub.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    assert "does not know your token; log in with 'hf auth login' again, or unset HF_TOKEN" in sentence(card_on_hub)


@pytest.mark.usefixtures("at_once")
def test_the_hub_is_down(hub: LoopbackHub, card_on_hub: Card) -> None:
    """After some tries the status is told."""
    hub.fail_next = [503] * 50
    assert "The Hub answers 503 instead of someone/tiny" in sentence(card_on_hub)


@pytest.mark.usefixtures("at_once")
def test_a_busy_hub_is_asked_again(hub: LoopbackHub, card_on_hub: Card) -> None:
    """What passes is not worth a sentence."""
    hub.fail_next = [503, 500, 429]
    assert weights_file(card_on_hub).is_file()


def test_truncated(hub: LoopbackHub, card_on_hub: Card) -> None:
    """Nothing of a file without its end is kept; the next try gets the whole one."""
    hub.short = 10
    assert "arrived incomplete, and nothing of it was kept; try again" in sentence(card_on_hub)
    assert blobs() == []
    hub.short = 0
    assert weights_file(card_on_hub).is_file()


@pytest.mark.usefixtures("at_once")
def test_the_connection_breaks(hub: LoopbackHub, card_on_hub: Card) -> None:
    """Again and again, before a byte arrives; nothing is kept."""
    hub.cut = [0] * 50
    assert f"The connection to {hub.url} broke off before someone/tiny" in sentence(card_on_hub)
    assert blobs() == []


@pytest.mark.usefixtures("at_once")
def test_a_broken_download_goes_on(hub: LoopbackHub, card_on_hub: Card) -> None:
    """From where it was."""
    hub.cut = [1000, 2000]
    assert weights_file(card_on_hub).stat().st_size == card_on_hub.manifest["bytes"]


def test_tampered_on_the_way(hub: LoopbackHub, card_on_hub: Card) -> None:
    """The right size, other bytes: the client keeps them, the check removes them."""
    hub.spoil = True
    assert re.search(r"has sha256 .* its card says otherwise; do not use it, it was removed", sentence(card_on_hub))
    assert blobs() == []
    hub.spoil = False
    assert weights_file(card_on_hub).is_file()


@pytest.mark.parametrize("whole", [True, False])
def test_tampered_in_the_cache(hub: LoopbackHub, card_on_hub: Card, whole: bool) -> None:
    """Noticed every time, not only after the download; another size too."""
    blob = weights_file(card_on_hub).resolve()
    content = blob.read_bytes()
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if whole else content[:-1])
    assert "it was removed from the cache, so try again" in sentence(card_on_hub)
    assert weights_file(card_on_hub).read_bytes() == content


def test_other_weights_on_the_hub(hub: LoopbackHub, card_on_hub: Card) -> None:
    """A commit that does not belong to the card is noticed before it is downloaded."""
    commit = hub.commit("someone/tiny", {"model.safetensors": b"other"})
    said = sentence(pin_card(card_on_hub, "someone/tiny", commit))
    assert f"model.safetensors of someone/tiny@{commit[:7]} has 5 bytes on the Hub and its card says" in said
    assert [request.split()[0] for request in hub.requests] == ["HEAD"]


def test_too_little_space(hub: LoopbackHub, card_on_hub: Card) -> None:
    """Both numbers are told, before anything is asked of the Hub."""
    huge = replace(card_on_hub, manifest={**card_on_hub.manifest, "bytes": 10**15})
    said = sentence(huge)
    assert re.search(
        r"iquery\.tiny have 1,000,000,000\.0 MB and '.*' has [\d,]+\.\d MB left; free some, or set HF_HOME", said
    )
    assert hub.requests == []


def test_a_limit_on_files(hub: LoopbackHub, card_on_hub: Card) -> None:
    """What this user may write is full; nothing is left behind."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    said = in_a_process(card_on_hub, limit).stdout
    assert re.match(r"There is no space left for someone/tiny@.*; free some or set HF_HOME to a larger disk", said)
    assert blobs() == []


@pytest.fixture
def small_disk(hub: LoopbackHub, card_on_hub: Card, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The cache on a disk that has just space enough for the weights."""
    disk = Path(constants.HF_HOME)
    disk.mkdir()
    size = f"size={card_on_hub.manifest['bytes'] // 1024 + 64}k"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk takes an administrator")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_the_disk_fills_up(hub: LoopbackHub, card_on_hub: Card, small_disk: Path) -> None:
    """Somebody else takes the space while the file is under way; nothing is left behind."""
    hub.gate = threading.Event()

    def fill() -> None:
        hub.wait_until(lambda requests: any(request.startswith("GET") for request in requests))
        try:
            (small_disk / "of somebody else").write_bytes(bytes(10**7))
        except OSError:
            hub.gate.set()

    other = threading.Thread(target=fill)
    other.start()
    said = sentence(card_on_hub)
    other.join()
    assert "There is no space left for someone/tiny@" in said and blobs() == []


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (
            401,
            "does not let strangers write to someone/net; log in with 'hf auth login' and a token of the role 'write'",
        ),
        (403, "Your token may not write to someone/net; .* of a member of someone"),
        (409, "Somebody else changed someone/net meanwhile"),
        (412, "Somebody else changed someone/net meanwhile"),
        (400, "refuses what is sent to someone/net"),
        (500, "answers 500 to what is sent to someone/net; try again later"),
    ],
)
@pytest.mark.usefixtures("at_once")
def test_writing(hub: LoopbackHub, status: int, wanted: str) -> None:
    """An upload has sentences of its own."""
    from huggingface_hub import HfApi

    hub.add_repo("someone/net")
    hub.fail_next = [status] * 50
    with pytest.raises(WeightsError, match=wanted), hub_errors("someone/net", writing=True):
        HfApi(token="hf_secret").upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="someone/net")


@pytest.mark.usefixtures("at_once")
def test_writing_large_files(hub: LoopbackHub) -> None:
    """What goes wrong inside the client's upload is told, too."""
    from huggingface_hub import CommitOperationAdd, HfApi

    hub.add_repo("someone/net")
    change = CommitOperationAdd("model.safetensors", b"some weights")
    change.upload_info.sha256 = bytes(32)
    with (
        pytest.raises(WeightsError, match="refuses what is sent to someone/net"),
        hub_errors("someone/net", writing=True),
    ):
        HfApi(token="hf_secret").create_commit("someone/net", [change], commit_message="wrong")


def test_nobody_is_logged_in(hub: LoopbackHub) -> None:
    """Found by the client, before anything is asked."""
    from huggingface_hub import HfApi

    with pytest.raises(WeightsError, match="has to know who asks for someone/net; log in"), hub_errors("someone/net"):
        HfApi().whoami(token=True)
    assert hub.requests == []


def test_other_errors_pass(hub: LoopbackHub) -> None:
    """A mistake in the program is not made a sentence about the Hub."""
    with pytest.raises(ZeroDivisionError), hub_errors("someone/net"):
        _ = 1 / 0
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), hub_errors("someone/net"):
        import no_such_module  # noqa: F401
