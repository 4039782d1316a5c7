"""One of the dependencies is not there: list, help and load."""

from __future__ import annotations

import json
import warnings

import torch

REPO = "avsep-zoo/avsep-zoo:main"


def attempt(function: str, *arguments: str) -> str:
    try:
        return str(getattr(torch.hub, function)(REPO, *arguments, trust_repo=True, verbose=False))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


said = {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    said["list"] = [attempt("list"), [str(warning.message) for warning in caught]]
said["load"] = attempt("load", "iquery")
try:
    said["help"] = torch.hub.help(REPO, "iquery", trust_repo=True)
except Exception as error:
    said["help"] = f"{type(error).__name__}: {error}"
print("SAID", json.dumps(said))
