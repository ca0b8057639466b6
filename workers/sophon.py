"""A bmodel on Sophon TPUs: its nets run on chips of this machine, everything else is the engine's own."""

import logging
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path

from contract import AnswerForm, CannotDo, Capabilities, ChatMessage, Completion, ModelCard, Sampling, Token
from engine.checkpoints.tokenizers import load_tokenizer
from engine.engine import STEP_TOKENS, Engine
from engine.executors.sophon.executor import DoesNotFitChip, SophonExecutor
from engine.executors.sophon.layout import UnknownLayout
from engine.executors.sophon.sail import SailMissing, load_sail
from engine.lanes import LaneCache
from engine.loading.own_thread import OwnThread
from engine.loading.warming import warm
from engine.tokenizer import ChatTokenizer
from workers.errors import CannotLoad
from workers.local import LocalModel, fingerprint_of, one_line, telling_files
from workers.placement import Board, Placement

logger = logging.getLogger(__name__)

#: Where the compiler puts the tokenizer, beside the bmodel.
COMPILED_CONFIG = "config"

#: Lanes whose sequences have left that are kept for those who begin alike; the memory of others is freed.
MOST_KEPT = 4

#: Tokens behind a known prefix that are computed one by one where the bmodel takes no history: a guess at
#: what is still less work than computing the whole prompt.
MOST_REST = 32

#: Fields of Sampling that ask for another token than the one the net has chosen, or for its chances.
NEEDS_LOGITS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "min_tokens",
    "ignore_end",
    "logprobs",
)

#: What a bmodel without logits can be asked for.
GREEDY_ALONE = Capabilities(constraints=False, cannot_sample=NEEDS_LOGITS)


class SophonModel(LocalModel):
    """A bmodel in this process: many answers at once, each with its own cache on the chip."""

    def __init__(
        self, card: ModelCard, tokenizer: ChatTokenizer, engine: Engine, executor: SophonExecutor
    ) -> None:
        super().__init__(card, tokenizer, engine)
        self._executor = executor

    def generate(
        self,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        constraint: AnswerForm | None = None,
        said: Sequence[Sequence[int]] = (),
    ) -> Generator[Token, None, Completion]:
        """Yield the assistant's next turn; see `contract.Model`."""
        self._check(sampling, constraint)
        return (yield from super().generate(messages, sampling, constraint, said))

    def close(self) -> None:
        """Stop the engine and give the chips' memory back."""
        super().close()
        self._executor.close()

    def _check(self, sampling: Sampling, form: AnswerForm | None) -> None:
        """A net that gives token ids alone takes the most probable one: temperature 0 is what it does, and
        what it does if nothing is said."""
        capabilities = self.card.capabilities
        why = "its bmodel gives no logits (compile it with --do_sample)"
        if form is not None and not capabilities.constraints:
            raise CannotDo(f"form: the model {self.card.name} cannot keep its answer to a form: {why}")
        for name in capabilities.cannot_sample:
            value, usual = getattr(sampling, name), getattr(Sampling(), name)
            if value != usual and not (name == "temperature" and value == 0):
                raise CannotDo(f"{name}: the model {self.card.name} cannot follow it: {why}")


def load_sophon_model(bmodel: Path, name: str, board: Board, placement: Placement) -> SophonModel:
    """Load the bmodel onto its chips and start its engine.

    Raises CannotLoad with one line that says what stands in the way.
    """
    where = f"cannot load {bmodel} on chip {'+'.join(map(str, board.chips))}"
    if not bmodel.is_file():
        raise CannotLoad(f"cannot load {bmodel}: there is no such file")
    folder = _token_config(bmodel, board.token_config)
    try:
        model = _load(bmodel, folder, name, board, placement)
    except (SailMissing, UnknownLayout, DoesNotFitChip) as error:
        raise CannotLoad(f"{where}: {error}") from error
    except Exception as error:  # the vendor's runtime and damaged files raise anything
        logger.debug("Loading %s failed", bmodel, exc_info=True)
        raise CannotLoad(f"{where}: {one_line(error)}") from error
    model.engine.start()
    return model


def _token_config(bmodel: Path, said: Path | None) -> Path:
    folder = bmodel.parent / COMPILED_CONFIG if said is None else said
    if folder.is_dir():
        return folder
    if said is None:
        raise CannotLoad(
            f"no tokenizer for {bmodel}: there is no {folder}; name its folder with --token-config"
        )
    raise CannotLoad(f"no tokenizer for {bmodel}: {folder} is not a folder")


def _load(bmodel: Path, folder: Path, name: str, board: Board, placement: Placement) -> SophonModel:
    sail = load_sail()
    tokenizer, end_ids = load_tokenizer(folder)
    warming = OwnThread(partial(warm, tokenizer.vocabulary), "warm-grammar")
    executor = SophonExecutor(
        sail,
        bmodel,
        board.chips,
        most_lanes=placement.capacity,
        vocabulary_size=len(tokenizer.vocabulary),
        memory_bytes=placement.memory_bytes,
    )
    layout = executor.layout
    if layout.logits is not None and any(tokenizer.vocabulary.tokens[layout.logits :]):
        raise UnknownLayout(
            f"the tokenizer in {folder} has {len(tokenizer.vocabulary)} ids, but the bmodel knows only "
            f"{layout.logits}"
        )
    warming.result()
    engine = _engine(executor, tokenizer, end_ids, placement)
    card = ModelCard(
        name=name,
        fingerprint=fingerprint_of([bmodel, *telling_files(folder)]),
        context_tokens=engine.context_tokens,
        capabilities=GREEDY_ALONE if layout.logits is None else Capabilities(),
    )
    logger.info(
        "Loaded %s: %s cache, %d tokens of context, %d at once%s, %d sequences",
        name,
        layout.form,
        engine.context_tokens,
        layout.prefill_tokens,
        " behind a history" if layout.takes_history else "",
        executor.lanes,
    )
    return SophonModel(card, tokenizer, engine, executor)


def _engine(
    executor: SophonExecutor, tokenizer: ChatTokenizer, end_ids: frozenset[int], placement: Placement
) -> Engine:
    layout = executor.layout
    cache = LaneCache(
        executor,
        executor.lanes,
        layout.context_tokens,
        most_kept=MOST_KEPT,
        most_rest=None if layout.takes_history else MOST_REST,
    )
    return Engine(
        executor,
        tokenizer.vocabulary,
        end_ids,
        capacity=placement.capacity,
        context_tokens=min(layout.context_tokens, placement.context_tokens or layout.context_tokens),
        # A chunk of a prompt fills the net's width, however many others get their next token beside it.
        step_tokens=layout.prefill_tokens + executor.lanes if layout.takes_history else STEP_TOKENS,
        cache=cache,
        whole_prompt_tokens=None if layout.takes_history else layout.prefill_tokens,
    )
