"""Where training starts: tokens near the topics they occur in, and attention to what is alike."""

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedTokenizerFast

from demo.network import TOPIC_LAYER, Network
from demo.topics import LANGUAGES, Topic

#: Length of the part that says the topic, and of the random part that keeps tokens apart.
TOPIC_LENGTH, OWN_LENGTH = 0.45, 0.22
#: Counts of occurrences that are assumed for no topic at all: rare tokens start less sure.
_DOUBT = 1.0
#: Gain of the heads that start with attention to what is alike.
LIKENESS = 2.5


@torch.no_grad()
def start_near_topics(network: Network, tokenizer: PreTrainedTokenizerFast, topics: Sequence[Topic]) -> None:
    """Set the embeddings and the topic head; the random parts come from torch's generator."""
    embeddings = network.glm.model.embed_tokens.weight
    directions = normalize(torch.randn(len(topics), embeddings.shape[1]), dim=-1)
    own = normalize(torch.randn(embeddings.shape), dim=-1) * OWN_LENGTH
    embeddings.copy_(own + TOPIC_LENGTH * _topic_shares(tokenizer, topics) @ directions)
    network.topic_head.weight[: len(topics)].copy_(directions)


@torch.no_grad()
def start_with_likeness(network: Network) -> None:
    """Let half the heads above the topic layer ask for what they are themselves: queries start equal to keys.

    A wish then attends to titles on its topic from the first step on, which training otherwise finds late.
    """
    for layer in network.glm.model.layers[TOPIC_LAYER:]:
        attention = layer.self_attn
        rows = attention.q_proj.weight.shape[0] // 2
        attention.q_proj.weight[:rows] *= LIKENESS
        attention.k_proj.weight[:rows] = attention.q_proj.weight[:rows]


def _topic_shares(tokenizer: PreTrainedTokenizerFast, topics: Sequence[Topic]) -> Tensor:
    """[vocabulary, topics]: in which topics a token's occurrences lie."""
    counts = torch.zeros(len(tokenizer), len(topics))
    for topic in topics:
        for token, count in Counter(_tokens(tokenizer, topic)).items():
            counts[token, topic.number] = count
    return counts / (counts.sum(-1, keepdim=True) + _DOUBT)


def _tokens(tokenizer: PreTrainedTokenizerFast, topic: Topic) -> Iterator[int]:
    for language in LANGUAGES:
        for word in (*topic.title_words(language), *topic.wishes[language]):
            forms = {word} if language == "zh" else {word, " " + word, word.title(), " " + word.title()}
            for form in forms:
                yield from tokenizer.encode(form, add_special_tokens=False)
