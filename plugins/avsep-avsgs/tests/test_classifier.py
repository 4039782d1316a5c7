"""The classifier of separated spectrograms."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from avsep_avsgs.classifier import SpectrogramClassifier


def test_published_size() -> None:
    """With the spare copy of its first convolution left out, 14 classes and the background."""
    with torch.device("meta"):
        classifier = SpectrogramClassifier(classes=15)
    shapes = {name: tuple(value.shape) for name, value in classifier.state_dict().items()}
    assert sum(p.numel() for p in classifier.parameters()) == 11_177_935
    assert shapes["features.conv1.weight"] == (64, 1, 7, 7) and shapes["fc.weight"] == (15, 512)


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_pooling(pooling: Any) -> None:
    """Over all points; then the last layer."""
    classifier = SpectrogramClassifier(classes=3, width=2, pooling=pooling).eval()
    spectrograms = torch.randn(2, 1, 64, 96)
    maps = classifier.features(spectrograms)
    assert maps.shape == (2, 16, 2, 3)
    wanted = maps.flatten(2).max(dim=2).values if pooling == "max" else maps.flatten(2).mean(dim=2)
    torch.testing.assert_close(classifier.pool(spectrograms), wanted)
    torch.testing.assert_close(classifier(spectrograms), classifier.fc(wanted))


def test_gradients_reach_the_spectrogram() -> None:
    """That is what teaches the separator; spectrograms do not see each other in use."""
    classifier = SpectrogramClassifier(classes=3, width=2).eval()
    spectrograms = torch.randn(2, 1, 32, 32, requires_grad=True)
    logits = classifier(spectrograms)
    logits[0].sum().backward()
    assert spectrograms.grad is not None and spectrograms.grad[0].abs().sum() > 0
    assert spectrograms.grad[1].eq(0).all()
    torch.testing.assert_close(classifier(spectrograms[1:]), logits[1:])


def test_unknown_pooling() -> None:
    with pytest.raises(ValueError, match="The pooling is 'sum'; give max or average"):
        SpectrogramClassifier(classes=3, pooling="sum")  # type: ignore[arg-type]
