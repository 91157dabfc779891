"""How a map or a sequence of tokens becomes one vector: class token, mean, generalised mean, or learned attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from angulus.core import checks
from angulus.core.checks import InputError

POOLINGS = ("cls", "mean", "gem", "attention")


class GeM(nn.Module):
    """(mean over places of max(x, eps)^p)^(1/p), with one learned p: 1 is the mean, large p the maximum.

    Shapes: tokens [B, T, C] -> [B, C], in float32 also under autocast.

    Source: F. Radenović, G. Tolias, O. Chum, "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019,
    eq. 3 and Sec. 5.1 (p = 3 at first).
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p, self.eps = nn.Parameter(torch.full((1,), float(p))), eps

    def forward(self, tokens: Tensor) -> Tensor:
        """Map [B, T, C] to [B, C]."""
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.to(torch.promote_types(tokens.dtype, self.p.dtype))
            return tokens.clamp_min(self.eps).pow(self.p).mean(dim=1).pow(1 / self.p)


class AttentionPool(nn.Module):
    """A learned query attends to all places; the first weights are drawn.

    Shapes: tokens [B, T, C] -> [B, C].

    Source: J. Lee et al., "Set Transformer", ICML 2019, Sec. 3.2 (PMA with one seed), here without its feed-forward.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        heads = max(width // 64, 1)
        self.query = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.attention = nn.MultiheadAttention(width, heads if width % heads == 0 else 1, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map [B, T, C] to [B, C]."""
        pooled: Tensor = self.attention(self.query.expand(len(tokens), -1, -1), tokens, tokens, need_weights=False)[0]
        return pooled[:, 0]


class Pool(nn.Module):
    """Pool maps [B, C, H, W] or tokens [B, T, C] to [B, C].

    Args:
        kind: one of `POOLINGS`.
        width: C.
        prefix: how many tokens come before those of places; the first is the class token.
        channels_last: maps are [B, H, W, C].
    """

    def __init__(self, kind: str, width: int, prefix: int = 0, *, channels_last: bool = False) -> None:
        super().__init__()
        checks.choice("pooling", kind, POOLINGS)
        if kind == "cls" and not prefix:
            raise InputError(
                "pooling 'cls' needs a net with a class token; this one has none: take mean, gem or attention"
            )
        self.kind, self.prefix, self.channels_last = kind, prefix, channels_last
        self.learned = GeM() if kind == "gem" else AttentionPool(width) if kind == "attention" else nn.Identity()

    def forward(self, outputs: Tensor) -> Tensor:
        """Map what the net gives to [B, C]."""
        if outputs.ndim == 4:
            outputs = outputs.flatten(1, 2) if self.channels_last else outputs.flatten(2).transpose(1, 2)
        if self.kind == "cls":
            return outputs[:, 0]
        places = outputs[:, self.prefix :]
        return places.mean(dim=1) if self.kind == "mean" else self.learned(places)
