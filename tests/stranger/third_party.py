"""A method of a plugin that somebody else published: untrained, then with a card that travels in its package."""

from __future__ import annotations

import json
from typing import Any

import avsep_third
import torch

REPO = "avsep-zoo/avsep-zoo:main"


def load(name: str, **arguments: Any) -> Any:
    return torch.hub.load(REPO, name, trust_repo=True, verbose=False, **arguments)


def main() -> None:
    said: dict[str, Any] = {"names": torch.hub.list(REPO, trust_repo=True, verbose=False)}
    said["help"] = torch.hub.help(REPO, "third", trust_repo=True)
    torch.manual_seed(0)
    untrained = load("third", weights=None)
    said["untrained"] = [untrained.name, type(untrained.separator).__module__]

    from avsep_zoo import AvsepError
    from avsep_zoo.weights.cards import write_card

    for name in ("third.tiny", "iquery.tiny"):
        licences = {"code": "MIT", "weights": "CC-BY-NC-4.0", "training_data": "CC-BY-4.0"}
        write_card(avsep_third.CARDS / name, untrained, name=name, manifest={"licences": licences})
    model = load("third")
    said["loaded"] = model.name
    said["same"] = all(torch.equal(value, model.state_dict()[key]) for key, value in untrained.state_dict().items())
    said["help with card"] = torch.hub.help(REPO, "third", trust_repo=True)
    wave = model.separate(torch.sin(torch.arange(8000) / 9), ["violin", "flute"], rate=8000).stems[0].waveform
    said["finite"] = bool(torch.isfinite(torch.as_tensor(wave)).all())
    try:
        said["foreign"] = load("iquery", weights="iquery.tiny").name
    except AvsepError as error:
        said["foreign"] = f"{type(error).__name__}: {error}"
    print("SAID", json.dumps(said))


main()
