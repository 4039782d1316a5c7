"""CLAP's published weights, in LAION's own layout or in that of transformers."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from avsep_bimodal_sep.clap_keys import clap_entries
from avsep_bimodal_sep.official_keys import CLAP
from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.checkpoints import read_settings, read_tensors
from avsep_zoo.weights.hub_files import HubFiles, fetch
from avsep_zoo.weights.pretrained import load_entries

__all__ = ["WEIGHTS", "load_tower"]

# The file that the method was trained with, 2.4 GB. transformers' conversion of it, laion/larger_clap_music, is no
# substitute: it embeds all texts almost alike (embeddings-benchmark/mteb issue 5069).
WEIGHTS = "lukewys/laion_clap@b3708341862f581175dba5c356a4ebf74a9b6651"
_FILE = "music_audioset_epoch_15_esc_90.14.pt"
_CONSTANTS = ("position_ids", "token_type_ids", "relative_position_index")


def load_tower(tower: nn.Module, weights: str | None, *, kind: str) -> dict[str, Tensor]:
    """Load CLAP's weights into one of its towers; nothing is loaded unless all of them fit.

    Args:
        tower: a text or a sound tower, in place.
        weights: a file, a folder, or ``org/name@commit`` on the Hugging Face Hub, with LAION's entries
            (``text_branch.*``), those of transformers' ClapModel (``text_model.*``), or those of an official checkpoint
            of the method, which holds CLAP. Training checkpoints are read without running anything in them.
        kind: ``text`` or ``audio``.

    Returns:
        The entries of the weights that belong to neither tower, as ``logit_scale_a``.

    Raises:
        WeightsError: they are not named, cannot be had, or are those of other networks.
    """
    title = f"{kind} tower of CLAP"
    if weights is None:
        raise WeightsError(
            f"The frozen {title} has to start from published weights; name a file or folder of them, or "
            "org/name@commit, by the setting clap_weights."
        )
    files = fetch(weights, patterns=("config.json", "*.safetensors", "*.pth", _FILE))
    _check_settings(tower, files, kind)
    entries = read_tensors(_file(files))
    inside = {name.partition(CLAP)[2]: value for name, value in entries.items() if CLAP in name}
    entries = inside or entries
    if any(name.startswith(("text_branch.", "audio_branch.")) for name in entries):
        entries = clap_entries(entries)
    own = {k: v for k, v in entries.items() if k.startswith(f"{kind}_") and not k.endswith(_CONSTANTS)}
    load_entries(tower, own, title=title, source=files.source)
    return {name: value for name, value in entries.items() if not name.startswith(("text_", "audio_"))}


def _file(files: HubFiles) -> Path:
    if files.path.is_file():
        return files.path
    found = [files.path / name for name in files.sha256 if name.endswith(".safetensors")]
    found = found or [files.path / name for name in files.sha256 if not name.endswith(".json")]
    if len(found) != 1:
        raise WeightsError(
            f"{str(files.path)!r} holds {len(found)} files of weights; name the one to use by the setting clap_weights."
        )
    return found[0]


def _check_settings(tower: nn.Module, files: HubFiles, kind: str) -> None:
    """What no shape tells; epsilons are LAION's whatever a conversion wrote down."""
    stated = read_settings(files.path, {f"{kind}_config": dict}).get(f"{kind}_config", {})
    for name in ("num_attention_heads", "hidden_act"):
        wanted = getattr(tower.config, name)
        if stated.get(name, wanted) != wanted:
            raise WeightsError(
                f"The {kind} tower of CLAP in {files.source} has {name} {stated[name]!r} and this one {wanted!r}; give "
                "the weights of the same network."
            )
