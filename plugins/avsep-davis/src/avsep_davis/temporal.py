"""The temporal transformer: what the frames of a source say together."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["TemporalTransformer"]


class TemporalTransformer(nn.Module):
    """Encoder-decoder transformer with the frames as source and target; it has no positions, so no order.

    Entries are those of ``torch.nn.Transformer``.

    Source: Huang et al., ACCV 2024, section 3.2.

    Args:
        width: of the features per frame.
        heads: of the attentions.
        feedforward: width of the feed-forward networks.
        encoder_layers, decoder_layers: numbers of layers.
        dropout: in training.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        feedforward: int = 2048,
        encoder_layers: int = 3,
        decoder_layers: int = 1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"The features per frame have width {width}; choose heads ({heads}) that divide it.")
        self.transformer = nn.Transformer(
            width, heads, encoder_layers, decoder_layers, feedforward, dropout, batch_first=True
        )

    def forward(self, frames: Tensor) -> Tensor:
        """(B, K, D) -> (B, K, D)."""
        out: Tensor = self.transformer(frames, frames)
        return out
