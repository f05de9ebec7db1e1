"""Multi-head attention whose projections are sparse layers."""

from __future__ import annotations

import torch
from torch import nn

from sparserl.errors import ConfigError
from sparserl.layers.linear import linear


class SparseAttention(nn.Module):
    """`nn.MultiheadAttention` of sparse projections, its children `q_proj`, `k_proj`, `v_proj` and `out_proj`.

    Attention itself is between steps and has no weights; it stays as it is.

    Args:
        q_proj: `SparseLinear` or `nn.Linear` of queries, without bias.
        k_proj: Of keys.
        v_proj: Of values.
        out_proj: Of what heads found, with its bias.
        bias: (3 E,) biases of the first three, one after the other as torch has them; or None.
        num_heads: Heads, each of E / heads features.
        dropout: Share of attention weights that are 0 in training.
        batch_first: Whether sequences are (N, L, E) and not (L, N, E).

    Raises:
        ConfigError: In a call: if a sequence has not its features.
    """

    in_proj_bias: None = None
    _qkv_same_embed_dim = False
    """Both tell torch's transformer layers that there is no packed weight that their fast path could read."""

    def __init__(
        self,
        q_proj: nn.Module,
        k_proj: nn.Module,
        v_proj: nn.Module,
        out_proj: nn.Module,
        bias: nn.Parameter | None,
        *,
        num_heads: int,
        dropout: float = 0.0,
        batch_first: bool = False,
    ):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = q_proj, k_proj, v_proj, out_proj
        self.bias = bias
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = (
            linear(q_proj).shape[0],
            num_heads,
            dropout,
            batch_first,
        )

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Arguments and results of `nn.MultiheadAttention`; `is_causal` needs the mask that it is a hint for."""
        if is_causal and attn_mask is None:
            raise ConfigError("is_causal is a hint about attn_mask: give that, too")
        is_batch, swaps = query.dim() == 3, query.dim() == 3 and not self.batch_first
        biases = [None] * 3 if self.bias is None else self.bias.chunk(3)
        heads = []
        for name, x, bias in zip(("q_proj", "k_proj", "v_proj"), (query, key, value), biases, strict=True):
            product = self.get_submodule(name)
            if x.shape[-1] != linear(product).shape[1]:
                raise ConfigError(f"{name} takes {linear(product).shape[1]} features, got {tuple(x.shape)}")
            y = product(x.transpose(0, 1) if swaps else x if is_batch else x.unsqueeze(0))
            heads.append((y if bias is None else y + bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2))
        mask = self._mask(attn_mask, key_padding_mask if is_batch else _first(key_padding_mask), heads[0])
        p = self.dropout if self.training else 0.0
        if need_weights:
            scores = heads[0] @ heads[1].transpose(-2, -1) * heads[0].shape[-1] ** -0.5
            weights = nn.functional.dropout((scores if mask is None else scores + mask).softmax(dim=-1), p)
            found, seen = weights @ heads[2], weights.mean(dim=1) if average_attn_weights else weights
        else:
            q, k, v = heads
            found, seen = nn.functional.scaled_dot_product_attention(q, k, v, mask, p), None
        y = self.out_proj(found.transpose(1, 2).flatten(2))
        if not is_batch:
            return y.squeeze(0), None if seen is None else seen.squeeze(0)
        return y.transpose(0, 1) if swaps else y, seen

    def _mask(
        self, attention: torch.Tensor | None, padding: torch.Tensor | None, queries: torch.Tensor
    ) -> torch.Tensor | None:
        """What is added to scores (N, heads, L, S); None if nothing is."""
        parts = []
        if attention is not None:
            added = _added(attention, queries.dtype)
            parts.append(added if added.dim() == 2 else added.reshape(-1, self.num_heads, *added.shape[1:]))
        if padding is not None:
            parts.append(_added(padding, queries.dtype)[:, None, None, :])
        return sum(parts[1:], parts[0]) if parts else None

    def extra_repr(self) -> str:
        """Features and heads."""
        return f"{self.embed_dim}, num_heads={self.num_heads}"


def _added(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask of booleans, true where there is no attention, as numbers to add."""
    return mask if mask.is_floating_point() else torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -torch.inf)


def _first(mask: torch.Tensor | None) -> torch.Tensor | None:
    return None if mask is None else mask.unsqueeze(0)
