"""Similarity tiers: a histogram of the candidate's cosines with the history, read beside the attention."""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SimilarityTiers"]


class SimilarityTiers(nn.Module):
    """SimTier (Sheng et al., CIKM 2024, "Enhancing Taobao Display Advertising with Multimodal ...").

    Cosines from -1 to 1 fall into tiers of equal width; tier n holds log(1 + events of the history in it).
    What an attention averages away, how many events are how near, stays in the histogram. The vectors are
    fixed.
    """

    def __init__(self, tiers: int) -> None:
        super().__init__()
        self.tiers = tiers
        self.gain = nn.Parameter(torch.zeros(tiers))

    def forward(self, candidates: Tensor, history: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Histograms [g, c, tiers], and their linear part of the logit [g, c].

        Args:
            candidates: vectors [g, c, d]; history: vectors [g, t, d]; seen: bool [g, t].
        """
        cosines = functional.normalize(candidates, dim=-1) @ functional.normalize(history, dim=-1).mT
        tier = ((cosines + 1) * (self.tiers / 2)).long().clamp(0, self.tiers - 1)
        counts = cosines.new_zeros(*cosines.shape[:2], self.tiers)
        counts.scatter_add_(2, tier, seen[:, None].expand_as(tier).to(counts.dtype))
        histogram = counts.log1p()
        return histogram, histogram @ self.gain
