"""A vision transformer for small images: Dosovitskiy et al. 2020 (arXiv 2010.11929)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workers.contract import WorkersError
from workers.tasks.images.networks.options import Shape, Width
from workers.tasks.images.networks.sites import Activations, Norms, activation_of, split_sites

GELU = "0.5 * x * (1 + erf(0.7071067811865476 * x))"  # of plain feed-forwards, as in the paper
SILU = "x * sigmoid(x)"  # of gated ones, which makes them SwiGLU


class Attention(nn.Module):
    """Self-attention with several heads. Shapes: `(n, tokens, width)` to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)  # (n, heads, tokens, width / heads)
        out: Tensor = self.project(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Attention and a feed-forward, each after a normalisation and with a shortcut around both (pre-norm).

    Shapes: `(n, tokens, width)` to the same.
    """

    def __init__(self, width: int, heads: int, norm: Norms, activation: Activations) -> None:
        super().__init__()
        hidden = feed_forward_width(width, gated=activation.site == "gate")
        self.norm1, self.attention, self.norm2 = norm(width), Attention(width, heads), norm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, activation.expansion * hidden), activation(hidden, dim=-1), nn.Linear(hidden, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.feed_forward(self.norm2(x))
        return out


class VisionTransformer(nn.Module):
    """`depth` blocks on patches of `patch` by `patch` pixels, a last normalisation, and the mean of all tokens (arXiv
    2010.11929, appendix D.3) before the head. Positions are learned, so images have one size. Pixels of 0 fill up the
    last patches.

    `ffn`: "plain" has a hidden width of four times the width. "gated" has two thirds of that, so that both have
    equally many weights (Shazeer 2020, arXiv 2002.05202, section 3). "by-site" is "gated" where gates are searched,
    otherwise "plain". Where norms are searched, a plain feed-forward has GELU and a gated one is SwiGLU; where
    activations or gates are searched, the norms are LayerNorm.
    """

    def __init__(
        self,
        activation: Activations,
        shape: Shape,
        classes: int,
        *,
        depth: Annotated[int, range(1, 101)] = 4,
        width: Width = 64,
        heads: Annotated[int, range(1, 65)] = 4,
        patch: Annotated[int, range(1, 65)] = 2,
        ffn: Literal["by-site", "plain", "gated"] = "by-site",
    ) -> None:
        super().__init__()
        if width % heads:
            raise WorkersError(f"width must be a multiple of heads, {heads}, not {width}; change one of them")
        norm, activation = split_sites(activation, nn.LayerNorm, _feed_forward_function(activation.site, ffn), dim=-1)
        self.patch = patch
        rows, columns = (-(-side // patch) for side in shape[1:])
        self.embed = nn.Conv2d(shape[0], width, patch, patch, bias=False)  # the positions are biases
        self.positions = nn.Parameter(0.5 * torch.randn(rows * columns, width))
        self.blocks = nn.Sequential(*(Block(width, heads, norm, activation) for _ in range(depth)))
        self.norm, self.head = norm(width), nn.Linear(width, classes)
        self._initialise()

    def _initialise(self) -> None:
        """Initialise as in the paper's code: linear layers as Glorot, biases with 0, and the embedding so that a patch
        keeps the variance of its pixels.

        Positions begin with a standard deviation of 0.5 in place of 0.02. Beside patches of so few pixels, smaller ones
        are learned too slowly for short trainings: on digits, 77 % are right after 8 epochs in place of 93 to 96 %.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.kaiming_normal_(self.embed.weight, nonlinearity="linear")

    def forward(self, x: Tensor) -> Tensor:
        height, length = x.shape[2:]
        x = F.pad(x, (0, -length % self.patch, 0, -height % self.patch))
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.positions
        out: Tensor = self.head(self.norm(self.blocks(tokens)).mean(dim=1))
        return out


def feed_forward_width(width: int, *, gated: bool) -> int:
    """Return the hidden width of a feed-forward. A gated one has three matrices in place of two."""
    return 8 * width // 3 if gated else 4 * width


def _feed_forward_function(site: str, ffn: str) -> Activations:
    """Return the function of the feed-forwards where norms are searched, and check `ffn` where they are not.

    Raises:
        WorkersError: the function is searched at a gate and `ffn` has none, or the reverse.
    """
    if (site, ffn) in (("gate", "plain"), ("activation", "gated")):
        other = "gate" if site == "activation" else "activation"
        raise WorkersError(
            f"feed-forwards with ffn {ffn!r} have no {site} to search; use --site {other}, or leave ffn out"
        )
    return activation_of(SILU, "gate") if ffn == "gated" else activation_of(GELU)
