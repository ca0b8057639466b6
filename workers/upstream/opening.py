"""Makes the model that `openai:URL[#MODEL]` or `yuan:URL` names."""

import hashlib
import logging
import time
from urllib.parse import urlsplit

from contract import Capabilities, CapacityError, Model, ModelCard, OutputError, RequestError
from workers.errors import CannotLoad
from workers.upstream.kinds import PLAIN, kind_of
from workers.upstream.line import Line
from workers.upstream.openai import OpenAIModel
from workers.upstream.openai_wire import ListedModel, read_models
from workers.upstream.reach import Reach
from workers.upstream.refusals import KeyRefused
from workers.upstream.yuan import CANNOT_SAMPLE, CONTEXT_TOKENS, YuanModel

logger = logging.getLogger(__name__)

#: Seconds for a list of models.
LIST_SECONDS = 10.0

#: Seconds between two looks for an upstream that is not there yet: the first, and the longest.
FIRST_LOOK_SECONDS = 0.5
LONGEST_LOOK_SECONDS = 10.0

#: Tokens of an upstream that does not tell its context: what small servers have at least.
UNTOLD_CONTEXT_TOKENS = 4096

#: Names of models that a message lists.
SHOWN_MODELS = 8


def open_upstream(place: str, name: str, reach: Reach) -> Model:
    """Return the model at `place`, called `name`, or as the server calls it if that is empty.

    Waits until an OpenAI-compatible server tells its models. Raises CannotLoad if it never will.
    """
    scheme, _, address = place.partition(":")
    url, _, model = address.partition("#")
    if scheme == "yuan":
        return _open_yuan(_with_path(url, "/yuan"), name or "yuan", reach)
    return _open_openai(_with_path(url, "/v1"), model, name, reach)


def _open_yuan(url: str, name: str, reach: Reach) -> YuanModel:
    capabilities = Capabilities(goes_on=False, cannot_sample=CANNOT_SAMPLE)
    context_tokens = reach.context_tokens or CONTEXT_TOKENS
    card = ModelCard(name, _fingerprint("yuan", url), context_tokens, capabilities)
    return YuanModel(card, Line(url, reach))


def _open_openai(url: str, model: str, name: str, reach: Reach) -> OpenAIModel:
    line = Line(url, reach)
    listed = _chosen(_listed(line, model), model, url)
    kind = kind_of(listed.owned_by)
    capabilities = Capabilities(goes_on=kind.go_on is not None, cannot_sample=kind.cannot_sample)
    context_tokens = reach.context_tokens or listed.context_tokens or UNTOLD_CONTEXT_TOKENS
    card = ModelCard(name or listed.id, _fingerprint(url, listed.id), context_tokens, capabilities)
    logger.info("Upstream %s serves %s, of the kind %s", url, listed.id, kind.name)
    return OpenAIModel(card, kind, listed.id, line)


def _listed(line: Line, model: str) -> list[ListedModel]:
    """Return the upstream's models, waiting until it is there."""
    pause_seconds = FIRST_LOOK_SECONDS
    while True:
        try:
            if listed := read_models(line.fetch("GET", f"{line.url}/models", seconds=LIST_SECONDS)):
                return listed
            logger.warning("Waiting for the upstream %s: it serves no model yet", line.url)
        except KeyRefused as error:
            raise CannotLoad(f"the upstream {line.url} needs another key: {error}") from error
        except RequestError as error:
            if not model:
                raise CannotLoad(f"the upstream {line.url} lists no models: add #MODEL; {error}") from error
            return [ListedModel(model, PLAIN.name)]
        except (CapacityError, OutputError) as error:
            logger.warning("Waiting for the upstream %s: %s", line.url, error)
        time.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, LONGEST_LOOK_SECONDS)


def _chosen(listed: list[ListedModel], model: str, url: str) -> ListedModel:
    fitting = [one for one in listed if one.id == model] if model else listed
    if len(fitting) == 1:
        return fitting[0]
    shown = ", ".join(one.id for one in listed[:SHOWN_MODELS]) or "none"
    if model:
        raise CannotLoad(f"the upstream {url} has no model {model}, only {shown}")
    raise CannotLoad(f"the upstream {url} has {len(listed)} models: add #MODEL with one of {shown}")


def _with_path(url: str, path: str) -> str:
    """Return the address without a slash at its end, and with the usual path if it has none."""
    url = url.rstrip("/")
    return url if urlsplit(url).path else url + path


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
