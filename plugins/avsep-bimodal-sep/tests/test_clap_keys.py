"""LAION-CLAP's entries and the towers out of transformers' classes."""

from __future__ import annotations

import pytest
import torch

from avsep_bimodal_sep.clap_keys import clap_entries, clap_keys
from avsep_bimodal_sep.clap_towers import SOUND_TOWER, TEXT_TOWER, sound_tower, text_tower
from avsep_zoo.errors import WeightsError

BLOCK = "audio_branch.layers.2.blocks.11"
PLACE = "audio_model.audio_encoder.layers.2.blocks.11"


@pytest.mark.parametrize(
    ("laion", "ours"),
    [
        (
            "text_branch.encoder.layer.3.attention.self.query.bias",
            "text_model.encoder.layer.3.attention.self.query.bias",
        ),
        ("text_branch.pooler.dense.weight", "text_model.pooler.dense.weight"),
        ("text_projection.2.weight", "text_projection.linear2.weight"),
        ("audio_projection.0.bias", "audio_projection.linear1.bias"),
        ("audio_branch.bn0.running_mean", "audio_model.audio_encoder.batch_norm.running_mean"),
        ("audio_branch.patch_embed.norm.bias", "audio_model.audio_encoder.patch_embed.norm.bias"),
        ("audio_branch.layers.0.downsample.norm.weight", "audio_model.audio_encoder.layers.0.downsample.norm.weight"),
        ("audio_branch.norm.weight", "audio_model.audio_encoder.norm.weight"),
        (f"{BLOCK}.norm1.weight", f"{PLACE}.layernorm_before.weight"),
        (f"{BLOCK}.norm2.bias", f"{PLACE}.layernorm_after.bias"),
        (f"{BLOCK}.attn.relative_position_bias_table", f"{PLACE}.attention.self.relative_position_bias_table"),
        (f"{BLOCK}.attn.proj.weight", f"{PLACE}.attention.output.dense.weight"),
        (f"{BLOCK}.mlp.fc1.weight", f"{PLACE}.intermediate.dense.weight"),
        (f"{BLOCK}.mlp.fc2.bias", f"{PLACE}.output.dense.bias"),
        ("logit_scale_a", "logit_scale_a"),
    ],
)
def test_names(laion: str, ours: str) -> None:
    assert clap_keys(laion) == (ours,)


@pytest.mark.parametrize(
    "laion",
    [
        "audio_branch.spectrogram_extractor.stft.conv_real.weight",
        "audio_branch.logmel_extractor.melW",
        "audio_branch.tscam_conv.bias",
        "audio_branch.head.weight",
        f"{BLOCK}.attn_mask",
        f"{BLOCK}.attn.relative_position_index",
        "text_transform.sequential.3.weight",
        "text_branch.embeddings.position_ids",
    ],
)
def test_constants_and_heads_are_left_out(laion: str) -> None:
    assert clap_keys(laion) == () and clap_entries({laion: torch.zeros(2)}) == {}


def test_query_key_and_value_are_cut_apart() -> None:
    weight = torch.arange(12.0).reshape(6, 2)
    entries = clap_entries({f"{BLOCK}.attn.qkv.weight": weight})
    assert list(entries) == [f"{PLACE}.attention.self.{part}.weight" for part in ("query", "key", "value")]
    assert torch.equal(torch.cat(list(entries.values())), weight)


@pytest.mark.parametrize("name", ["net_sound.bn0.weight", "text_branch", "text_projection.1.weight", ""])
def test_entries_of_something_else(name: str) -> None:
    with pytest.raises(WeightsError, match="is no entry of LAION-CLAP"):
        clap_keys(name)


def test_the_published_sizes() -> None:
    """Of RoBERTa-base and HTSAT-base; the epsilon is LAION's, not transformers' own."""
    with torch.device("meta"):
        text, sound = text_tower(TEXT_TOWER), sound_tower(SOUND_TOWER)
    assert sum(p.numel() for p in text.parameters()) == 125_302_016
    assert sum(p.numel() for p in sound.parameters()) == 68_611_864
    assert {m.eps for m in text.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-5}
    assert not any(p.requires_grad for tower in (text, sound) for p in tower.parameters())
