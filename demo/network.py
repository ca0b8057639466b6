"""The network that is trained: a GLM, and two small heads on its lower layers that are dropped afterwards."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, GlmConfig, GlmForCausalLM, PreTrainedTokenizerFast

from demo.batches import IGNORED, Batch
from demo.guidance import GUIDES, guide_loss
from demo.tokenizer import END_TOKENS, save_tokenizer

#: Positions that training and tests reach.
CONTEXT_TOKENS = 2048
#: Width of one attention head.
HEAD_SIZE = 64
#: After how many layers the end of a title or a wish knows its topic, and how many titles on it stand before.
TOPIC_LAYER, ORDINAL_LAYER = 2, 3
#: Ordinals from this one on are one class.
ORDINAL_COUNT = 12
#: Shares of the auxiliary losses.
TOPIC_SHARE, ORDINAL_SHARE, GUIDE_SHARE = 0.3, 0.2, 0.2


@dataclass(frozen=True)
class Losses:
    """Mean losses of a batch, and how many of its decisions were right."""

    total: Tensor
    answer: float
    topic: float
    ordinal: float
    decisions: int
    decisions_right: int
    topics_right: float
    guides: dict[str, float]


class Network(nn.Module):
    """A GLM with deep supervision: lower layers learn early what the upper ones will need."""

    def __init__(self, config: GlmConfig, topic_count: int) -> None:
        super().__init__()
        self.glm = GlmForCausalLM(config)
        self.topic_head = nn.Linear(config.hidden_size, topic_count + 1)
        self.ordinal_head = nn.Linear(config.hidden_size, ORDINAL_COUNT)

    def forward(self, batch: Batch) -> Losses:
        rotary = self.glm.model.rotary_emb(self.glm.lm_head.weight, position_ids=batch.positions)
        states = self._states(batch, rotary)
        guides = self._guide_losses(batch, states, rotary)
        topic, topics_right = self._head_loss(self.topic_head, states[TOPIC_LAYER], batch.topics)
        ordinals = batch.ordinals.clamp(max=ORDINAL_COUNT - 1)
        ordinal, _ = self._head_loss(self.ordinal_head, states[ORDINAL_LAYER], ordinals)
        answer, decisions, right = self._answer_loss(batch, states[-1])
        total = answer + TOPIC_SHARE * topic + ORDINAL_SHARE * ordinal + GUIDE_SHARE * sum(guides.values())
        shown = {purpose: round(loss.item(), 3) for purpose, loss in guides.items()}
        return Losses(
            total, answer.item(), topic.item(), ordinal.item(), decisions, right, topics_right, shown
        )

    def _states(self, batch: Batch, rotary: tuple[Tensor, Tensor]) -> list[Tensor]:
        """The hidden states before the first layer and after each."""
        model = self.glm.model
        states = [model.embed_tokens(batch.ids)]
        for layer in model.layers:
            states.append(layer(states[-1], attention_mask=batch.mask, position_embeddings=rotary))
        return states

    def _guide_losses(
        self, batch: Batch, states: list[Tensor], rotary: tuple[Tensor, Tensor]
    ) -> dict[str, Tensor]:
        layers = self.glm.model.layers
        return {
            guide.purpose: guide_loss(guide, layers[guide.layer], states[guide.layer], rotary, batch)
            for guide in GUIDES
        }

    def _answer_loss(self, batch: Batch, state: Tensor) -> tuple[Tensor, int, int]:
        """The weighted loss of what is learned, how many decisions it holds, and how many are right."""
        is_learned = batch.targets != IGNORED
        logits = self.glm.lm_head(self.glm.model.norm(state[is_learned])).float()
        targets, weights = batch.targets[is_learned], batch.weights[is_learned]
        loss = (cross_entropy(logits, targets, reduction="none") * weights).sum() / weights.sum()
        decided = batch.decisions[is_learned]
        right = (logits.argmax(-1) == targets)[decided]
        return loss, right.numel(), int(right.sum())

    def _head_loss(self, head: nn.Linear, state: Tensor, labels: Tensor) -> tuple[Tensor, float]:
        is_labelled = labels != IGNORED
        if not bool(is_labelled.any()):
            return state.sum() * 0.0, 0.0
        scores = head(state[is_labelled]).float()
        right = (scores.argmax(-1) == labels[is_labelled]).float().mean().item()
        return cross_entropy(scores, labels[is_labelled]), right


def make_config(tokenizer: PreTrainedTokenizerFast, layers: int, hidden_size: int) -> GlmConfig:
    """The shape of the model: GLM as published, only small."""
    heads = hidden_size // HEAD_SIZE
    end_ids = [tokenizer.get_vocab()[token] for token in END_TOKENS]
    return GlmConfig(
        vocab_size=len(tokenizer), hidden_size=hidden_size, intermediate_size=hidden_size * 5 // 2,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads, head_dim=HEAD_SIZE,
        attention_bias=False, attention_dropout=0.0, max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True, pad_token_id=end_ids[0], eos_token_id=end_ids,
    )  # fmt: skip


def save_model(network: Network, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write what `from_pretrained` reads: bfloat16 weights, configuration, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.to(torch.bfloat16) for name, tensor in network.glm.state_dict().items()}
    model = GlmForCausalLM(network.glm.config)
    nn.Module.to(model, torch.bfloat16)
    model.load_state_dict(state)
    config = network.glm.config
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
