"""Attention that is shown where to look: one head a step on the way from a wish to the tokens of a title."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers.models.glm.modeling_glm import apply_rotary_pos_emb

from demo.batches import IGNORED, Batch

#: What a head is shown: the start of a line, lines on the same topic, the last of these before this one,
#: the line that is wanted, the token to copy.
Purpose = Literal["starts", "likes", "behinds", "ends", "copies"]


@dataclass(frozen=True)
class Guide:
    """One head of one layer, counted from 0, and what it is shown."""

    purpose: Purpose
    layer: int
    head: int


#: The way of an answer through six layers. Lines and answers look behind with the same head: what both
#: fetch there is equal, and so the line that is wanted is the one that is like the query.
GUIDES = (
    Guide("starts", 1, 3),
    Guide("likes", 2, 0),
    Guide("behinds", 2, 1),
    Guide("ends", 3, 0),
    Guide("copies", 4, 1),
)


def guide_loss(
    guide: Guide, layer: Any, state: Tensor, rotary: tuple[Tensor, Tensor], batch: Batch
) -> Tensor:
    """Cross entropy between where the head looks and where it should; `state` is what enters the layer."""
    rows, queries, keys = _places(guide.purpose, batch)
    if rows.numel() == 0:
        return state.sum() * 0.0
    shares = _log_shares(guide.head, layer, state, rotary, batch.mask)
    places = torch.zeros_like(shares[:, :, 0]).index_put(
        (rows, queries), torch.ones(len(rows)), accumulate=True
    )
    picked = shares[rows, queries, keys] / places[rows, queries]
    return -picked.sum() / (places > 0).sum()


def _log_shares(head: int, layer: Any, state: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """[rows, length, length]: the logarithm of how much each token looks at each."""
    attention = layer.self_attn
    size = attention.head_dim
    columns = slice(head * size, (head + 1) * size)
    entering = layer.input_layernorm(state)
    queries = (entering @ attention.q_proj.weight[columns].T)[:, None]
    keys = (entering @ attention.k_proj.weight[columns].T)[:, None]
    queries, keys = apply_rotary_pos_emb(queries, keys, *rotary)  # type: ignore[no-untyped-call]
    scores = (queries @ keys.transpose(-1, -2)).float() * attention.scaling + mask.float()
    return log_softmax(scores[:, 0], dim=-1)


def _places(purpose: Purpose, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, queries and keys of all pairs that should look at each other."""
    if purpose == "likes":
        return _like_places(batch)
    labels: Tensor = getattr(batch, purpose)
    rows, queries = (labels != IGNORED).nonzero(as_tuple=True)
    return rows, queries, labels[rows, queries]


def _like_places(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Ends of titles and wishes look at earlier ends of titles on their topic, and at the first token.

    From the share of the first token the layer can read how many there are.
    """
    is_line = batch.starts != IGNORED
    is_end = batch.topics != IGNORED
    alike = (batch.topics[:, :, None] == batch.topics[:, None, :]) & is_end[:, :, None] & is_line[:, None, :]
    alike &= (batch.mask[:, 0] == 0) & ~torch.eye(is_line.shape[1], dtype=torch.bool)
    alike[:, :, 0] = is_end
    rows, queries, keys = alike.nonzero(as_tuple=True)
    return rows, queries, keys
