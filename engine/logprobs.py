"""How probable the model finds a token, and which it finds most probable."""

import math

import numpy as np

from contract import TokenLogprob
from engine.candidates import Scores, leading, total_of, weights_of
from grammar import Vocabulary

#: Told in place of minus infinity, which JSON cannot say (OpenAI's number for it).
LEAST_LOGPROB = -9999.0


def token_logprob(logits: Scores, token: int, top: int, vocabulary: Vocabulary) -> TokenLogprob:
    """Return a token's log probability under a row of logits, and the `top` most probable tokens.

    These come in order, of equal ones the lower id first; those without any chance are left out. The
    greatest logit must be finite.
    """
    greatest = float(logits.max())
    shift = greatest + math.log(total_of(weights_of(logits, temperature=1)))

    def told(id_: int, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        logprob = max(float(logits[id_]) - shift, LEAST_LOGPROB)
        return TokenLogprob(id_, vocabulary.tokens[id_] or b"", logprob, top)

    if not top:
        return told(token)
    places = leading(logits, top)
    order = places[np.argsort(-logits[places], kind="stable")]
    return told(token, tuple(told(id_) for id_ in order.tolist()))
