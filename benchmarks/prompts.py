"""Prompts of a given length that share nothing, so that no prefix cache helps anybody."""

import random
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

#: Words that prompts are drawn from; which ones is of no matter to a model with random weights.
WORDS = [
    *("river", "mountain", "lantern", "garden", "winter", "copper", "signal", "harbor"),
    *("velvet", "orchard", "thunder", "meadow", "pencil", "castle", "bridge", "marble"),
    *("forest", "candle", "silver", "window", "market", "island", "engine", "pocket"),
]

#: What lengthens a prompt by a token at a time.
FILLERS = (" a", " 1", ".", "!", "b")


class PromptMaker:
    """Draws conversations of one message that a model's chat template makes so many tokens long."""

    def __init__(self, model: Path, seed: int = 0) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(model, local_files_only=True)
        self._random = random.Random(seed)

    def tokens_of(self, content: str) -> int:
        """Return how many tokens a conversation of this one message has, the assistant's turn opened."""
        messages = [{"role": "user", "content": content}]
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def draw(self, tokens: int) -> str:
        """Return a new message. Raises ValueError if no text is that long in tokens."""
        content = str(self._random.randrange(10**6))
        while self.tokens_of(longer := f"{content} {self._random.choice(WORDS)}") <= tokens:
            content = longer
        while (have := self.tokens_of(content)) < tokens:
            longer_ones = (content + filler for filler in FILLERS)
            found = next((text for text in longer_ones if have < self.tokens_of(text) <= tokens), None)
            if found is None:
                raise ValueError(f"found no prompt of exactly {tokens} tokens")
            content = found
        if have > tokens:
            raise ValueError(f"the chat template alone takes {have} tokens, more than {tokens}")
        return content
