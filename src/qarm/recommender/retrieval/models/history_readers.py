"""History readers: item vectors of a history in, a query vector after each event out."""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["CausalAttention", "LagPooling", "history_reader"]

DECAYS = (0.5, 2.0, 6.0, 25.0)  # in events; at which the weightings by lag start


class LagPooling(nn.Module):
    """Weighted sums of a history by lag, mixed, plus one feed-forward layer.

    Each of `lags` weightings has a learned weight for every lag up to `length`; they start as exponential
    decays.
    """

    def __init__(self, dim: int, *, length: int, lags: int, dropout: float) -> None:
        super().__init__()
        lag, decays = torch.arange(length), torch.tensor([DECAYS[k % len(DECAYS)] for k in range(lags)])
        start = torch.exp(-lag[None] / decays[:, None])
        self.weights = nn.Parameter(start / start.sum(1, keepdim=True))
        self.mix = nn.Linear(lags * dim, dim, bias=False)
        self.feed = _feed_forward(dim, dropout)
        with torch.no_grad():
            self.mix.weight.copy_(torch.eye(dim).repeat(1, lags) / lags)

    def forward(self, vectors: Tensor, seen: Tensor) -> Tensor:
        """Queries [b, t, d] after each event of vectors [b, t, d]; seen: bool [b, t], false for no event."""
        length = vectors.shape[1]
        lag = torch.arange(length)[:, None] - torch.arange(length)
        by_lag = torch.where(lag >= 0, self.weights[:, lag.clamp(0, self.weights.shape[1] - 1)], 0.0)
        sums = by_lag.flatten(0, 1) @ (vectors * seen[..., None])
        return self._mixed(sums.view(len(vectors), -1, length, vectors.shape[2]))

    def last(self, vectors: Tensor, seen: Tensor) -> Tensor:
        """The query [b, d] after the last event, as `forward(...)[:, -1]`."""
        by_lag = self.weights[:, : vectors.shape[1]].flip(1)
        mixed = self._mixed((by_lag @ (vectors * seen[..., None]))[:, :, None])
        return mixed[:, 0]

    def _mixed(self, sums: Tensor) -> Tensor:
        """Queries [b, t, d] of sums [b, lags, t, d]."""
        mixed = self.mix(sums.transpose(1, 2).flatten(2))
        queries: Tensor = mixed + self.feed(mixed)
        return queries


class CausalAttention(nn.Module):
    """Causal self-attention, positions from the end (SASRec, Kang and McAuley, ICDM 2018)."""

    def __init__(self, dim: int, *, length: int, blocks: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.positions = nn.Embedding(length, dim)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_AttentionBlock(dim, heads, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)

    def forward(self, vectors: Tensor, seen: Tensor) -> Tensor:
        """Queries [b, t, d] after each event of vectors [b, t, d]; seen: bool [b, t], false for no event."""
        length = vectors.shape[1]
        places = torch.arange(length - 1, -1, -1)
        hidden = self.dropout(vectors + self.positions(places)) * seen[..., None]
        reachable = seen[:, None, None] & torch.ones(length, length, dtype=torch.bool).tril()
        reachable = reachable | torch.eye(length, dtype=torch.bool)  # no row without a key
        for block in self.blocks:
            hidden = block(hidden, reachable) * seen[..., None]
        normed: Tensor = self.norm(hidden)
        return normed

    def last(self, vectors: Tensor, seen: Tensor) -> Tensor:
        """The query [b, d] after the last event."""
        queries: Tensor = self(vectors, seen)
        return queries[:, -1]


class _AttentionBlock(nn.Module):
    """Self-attention and a feed-forward layer, each with a norm before it and a residual around it."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.norm = nn.LayerNorm(dim)
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.feed = _feed_forward(dim, dropout)

    def forward(self, hidden: Tensor, reachable: Tensor) -> Tensor:
        """Hidden states [b, t, d]; reachable: bool [b, 1, t, t], query by key."""
        normed = self.norm(hidden)
        query, key, value = (
            part(rows).view(*rows.shape[:2], self.heads, -1).transpose(1, 2)
            for part, rows in ((self.query, normed), (self.key, hidden), (self.value, hidden))
        )
        rate = self.rate if self.training else 0.0
        read = functional.scaled_dot_product_attention(query, key, value, attn_mask=reachable, dropout_p=rate)
        hidden = normed + self.out(read.transpose(1, 2).flatten(2))
        fed: Tensor = hidden + self.feed(hidden)
        return fed


def _feed_forward(dim: int, dropout: float) -> nn.Sequential:
    """Layer norm, twice as wide a hidden layer, and an output that starts at zero."""
    last = nn.Linear(2 * dim, dim)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(dropout), last)


def history_reader(
    kind: str, dim: int, *, length: int, lags: int, blocks: int, heads: int, dropout: float
) -> LagPooling | CausalAttention:
    """The reader of that name, `pool` or `attention`."""
    if kind == "pool":
        return LagPooling(dim, length=length, lags=lags, dropout=dropout)
    return CausalAttention(dim, length=length, blocks=blocks, heads=heads, dropout=dropout)
