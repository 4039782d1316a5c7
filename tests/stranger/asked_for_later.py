"""What only some uses need, where it is missing: each says in a sentence what to install."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

REPO = "avsep-zoo/avsep-zoo:main"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def attempt(name: str, **arguments: Any) -> str:
    try:
        return str(torch.hub.load(REPO, name, trust_repo=True, verbose=False, **arguments))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


said = {
    "pictures": attempt("davis", variant="music", weights=None),
    "texts": attempt("bimodal_sep", variant="audiocaps", weights=None),
    "address": attempt("iquery", weights=f"hf://avsep-zoo/iquery@{COMMIT}"),
}
bundled = Path(torch.hub.get_dir()) / "avsep-zoo_avsep-zoo_main" / "weights_cards" / "iquery.mini" / "README.md"
Path("card").mkdir()
text = bundled.read_text(encoding="utf-8")
pinned = text.replace("\navsep:\n", f"\navsep:\n  repo: avsep-zoo/iquery\n  revision: {COMMIT}\n")
Path("card", "README.md").write_text(pinned, encoding="utf-8")
said["card"] = attempt("iquery", weights=Path("card").absolute())

model = torch.hub.load(REPO, "iquery", trust_repo=True, verbose=False)
separation = model.separate(np.sin(np.arange(11025) / 9), ["flute", "tuba"], rate=11025)
try:
    said["report"] = str(separation.report("report.html"))
except Exception as error:
    said["report"] = f"{type(error).__name__}: {error}"
print("SAID", json.dumps(said))
