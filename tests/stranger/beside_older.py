"""Another avsep_zoo and avsep_iquery are installed: what is imported, here and in a process that is started anew."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import torch

REPO = "avsep-zoo/avsep-zoo:main"


def look(numbers: list[int]) -> dict[str, str]:
    """Where a worker finds the code."""
    import avsep_iquery.encoder
    import avsep_zoo.inference

    return {
        "core": str(avsep_zoo.inference.__file__),
        "plugin": str(avsep_iquery.encoder.__file__),
        "version": avsep_zoo.__version__,
    }


def main() -> None:
    said: dict[str, Any] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        said["names"] = torch.hub.list(REPO, trust_repo=True, verbose=False)
    said["warnings"] = [str(warning.message) for warning in caught if "avsep" in str(warning.message)]
    helped = {n: torch.hub.help(REPO, n, trust_repo=True) for n in said["names"] if n != "compose"}
    methods = [name for name, text in helped.items() if "\nWeights: none are published.\n" not in text]
    said["loaded"] = [torch.hub.load(REPO, name, trust_repo=True, verbose=False).name for name in methods]
    said["here"] = look([])
    loader = torch.utils.data.DataLoader([0], num_workers=1, multiprocessing_context="spawn", collate_fn=look)
    said["worker"] = next(iter(loader))
    said["order"] = sys.path
    print("SAID", json.dumps(said))


if __name__ == "__main__":
    main()
