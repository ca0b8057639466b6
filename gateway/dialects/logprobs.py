"""Spells a token and its log probability in JSON, alike in every protocol."""

from typing import Any

from contract import TokenLogprob

#: Stands for "impossible", as in OpenAI's API: JSON has no minus infinity.
LEAST_LOGPROB = -9999.0


def spell_token(of: TokenLogprob) -> dict[str, Any]:
    """Return it as text, with U+FFFD for what is no whole character, its log probability and its bytes."""
    return {
        "token": of.token.decode("utf-8", errors="replace"),
        "logprob": max(of.logprob, LEAST_LOGPROB),
        "bytes": list(of.token),
    }
