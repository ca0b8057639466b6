"""llguidance against xgrammar: `python -m benchmarks.grammar_libraries`, from the project's folder.

xgrammar is not among the requirements: put it on PYTHONPATH, with apache-tvm-ffi. Times are those of the
processor, and both libraries take turns, since the machine may be busy with other things; the ratios
are what counts.
"""

import importlib
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from importlib import metadata
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

import numpy as np
import psutil

from benchmarks.grammar_cases import CASES, LARGE, LARGE_ANSWER, SMALL, SMALL_ANSWER, Case
from grammar import Vocabulary

#: Known models' tokenizers, where the tests look for them.
vocabularies: Any = importlib.import_module("tests.vocabularies")

RESULT = Path(__file__).parent / "results" / "grammar_libraries.json"

TOKENIZERS = {"qwen2_5": vocabularies.qwen2_5, "glm4": vocabularies.glm4, "chatglm3": vocabularies.chatglm3}

#: Times that everything is done, the libraries in turn.
ROUNDS = 9


class Library(Protocol):
    """What is asked of both: a grammar for a schema, and a matcher that walks over an answer.

    `forced_bytes` says how many bytes are certain to come next, `is_whole` whether the answer may end.
    """

    def __init__(self, vocabulary: Vocabulary) -> None: ...

    def compile(self, schema: Any) -> Any: ...

    def matcher(self, grammar: Any) -> Any: ...

    def mask(self, matcher: Any) -> None: ...

    def accept(self, matcher: Any, token: int) -> bool: ...

    def forced_bytes(self, matcher: Any) -> int: ...

    def is_whole(self, matcher: Any) -> bool: ...


class Llguidance:
    """The library's own defaults, but one spelling for every value."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._library = importlib.import_module("llguidance")
        source = importlib.import_module("grammar.language")._TrieSource(vocabulary)
        self._tokenizer = self._library.LLTokenizer(self._library.TokenizerWrapper(source))

    def compile(self, schema: Any) -> Any:
        options = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        matcher = self._library.LLMatcher
        notation = matcher.grammar_from_json_schema(json.dumps(schema), overrides=options)
        compiled = matcher(self._tokenizer, notation, log_level=0)
        if compiled.is_error():
            raise ValueError(compiled.get_error())
        return compiled

    def matcher(self, grammar: Any) -> Any:
        return grammar.deep_copy()

    def mask(self, matcher: Any) -> None:
        matcher.compute_bitmask()

    def accept(self, matcher: Any, token: int) -> bool:
        return bool(matcher.try_consume_tokens([token]) == 1)

    def forced_bytes(self, matcher: Any) -> int:
        return len(matcher.compute_ff_bytes())

    def is_whole(self, matcher: Any) -> bool:
        return bool(matcher.is_accepting())


class Xgrammar:
    """The library's own defaults, but without white space of its own, nor strictness beyond the schema."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._library = importlib.import_module("xgrammar")
        self._end = len(vocabulary)
        tokens = [*(token or b"" for token in vocabulary.tokens), b"<end>"]
        kind = self._library.VocabType.RAW
        info = self._library.TokenizerInfo(tokens, kind, stop_token_ids=[self._end])
        self._compiler = self._library.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self._bits = np.zeros((1, (len(tokens) + 31) // 32), np.int32)

    def compile(self, schema: Any) -> Any:
        text = json.dumps(schema)
        return self._compiler.compile_json_schema(text, any_whitespace=False, strict_mode=False)

    def matcher(self, grammar: Any) -> Any:
        return self._library.GrammarMatcher(grammar)

    def mask(self, matcher: Any) -> None:
        matcher.fill_next_token_bitmask(self._bits)

    def accept(self, matcher: Any, token: int) -> bool:
        return bool(matcher.accept_token(token))

    def forced_bytes(self, matcher: Any) -> int:
        return len(matcher.find_jump_forward_string().encode())

    def is_whole(self, matcher: Any) -> bool:
        return bool(matcher.accept_token(self._end))


LIBRARIES: dict[str, type[Library]] = {"llguidance": Llguidance, "xgrammar": Xgrammar}


def measure() -> dict[str, Any]:
    """Return everything that is measured, by library."""
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "libraries": {name: _about(name) for name in LIBRARIES},
        "tokenizers": {name: _times(make()) for name, make in TOKENIZERS.items()},
    }
    vocabulary = vocabularies.qwen2_5()
    made = {name: library(vocabulary) for name, library in LIBRARIES.items()}
    result["threads"] = {name: _gain_of_two_threads(library, vocabulary) for name, library in made.items()}
    result["features"] = {
        case.name: {name: _verdict(library, vocabulary, case) for name, library in made.items()}
        for case in CASES
    }
    return result


def _about(name: str) -> dict[str, Any]:
    """Return what the package says of itself, and what loading it and one vocabulary costs a process."""
    about = metadata.metadata(name).json
    seconds, megabytes = _in_a_process(name)
    return {
        "version": about["version"],
        "license": about.get("license_expression") or about.get("license"),
        "requires": [need for need in metadata.requires(name) or [] if "extra ==" not in need],
        "import_seconds": seconds,
        "memory_megabytes": megabytes,
    }


def _in_a_process(name: str) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.grammar_libraries", "--cost-of", name]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    seconds, megabytes = map(float, said.split()[-2:])
    return seconds, megabytes


def _print_cost(name: str) -> None:
    """Print seconds of the import, and megabytes of the import, qwen2_5's trie and the large schema."""
    vocabulary = vocabularies.qwen2_5()
    for imported in [module for module in sys.modules if module.split(".")[0] in LIBRARIES]:
        del sys.modules[imported]
    before, started = psutil.Process().memory_info().rss, time.perf_counter()
    importlib.import_module(name)
    seconds = time.perf_counter() - started
    library = LIBRARIES[name](vocabulary)
    _walk(library, library.compile(LARGE), vocabulary.spell(json.dumps(LARGE_ANSWER)))
    print(f"{seconds:.3f} {(psutil.Process().memory_info().rss - before) / 1e6:.1f}")


def _times(vocabulary: Vocabulary) -> dict[str, Any]:
    builds: dict[str, list[float]] = {name: [] for name in LIBRARIES}
    made: dict[str, Library] = {}
    for _ in range(3):
        for name, library in LIBRARIES.items():
            started = time.process_time()
            made[name] = library(vocabulary)
            builds[name].append(time.process_time() - started)
    times: dict[str, Any] = {"tokenizer": _summary(builds)}
    for title, schema, answer in (("small", SMALL, SMALL_ANSWER), ("large", LARGE, LARGE_ANSWER)):
        ids = vocabulary.spell(json.dumps(answer, ensure_ascii=False))
        times |= _times_of_a_schema(made, title, schema, ids)
        times[f"{title}: share of bytes forced"] = {
            name: round(_forced_share(library, schema, vocabulary, ids), 3) for name, library in made.items()
        }
    return times


def _times_of_a_schema(
    made: dict[str, Library], title: str, schema: Any, ids: tuple[int, ...]
) -> dict[str, Any]:
    kinds = ("compile", "first mask", "mask", "worst mask", "accept")
    seconds: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in made} for kind in kinds}
    for _ in range(ROUNDS):
        for name, library in made.items():
            seconds["compile"][name].append(_seconds(partial(library.compile, schema)))
            masks, accepts = _walk(library, library.compile(schema), ids)
            seconds["first mask"][name].append(masks[0])
            seconds["mask"][name].append(statistics.fmean(masks))
            seconds["worst mask"][name].append(max(masks))
            seconds["accept"][name].append(statistics.fmean(accepts))
    return {f"{title}: {kind}": _summary(by_library) for kind, by_library in seconds.items()}


def _walk(library: Library, grammar: Any, ids: tuple[int, ...]) -> tuple[list[float], list[float]]:
    matcher = library.matcher(grammar)
    masks, accepts = [], []
    for id_ in ids:
        masks.append(_seconds(partial(library.mask, matcher)))
        accepts.append(_seconds(partial(_accept, library, matcher, id_)))
    return masks, accepts


def _accept(library: Library, matcher: Any, token: int) -> None:
    if not library.accept(matcher, token):
        raise RuntimeError("the library refuses a valid answer")


def _forced_share(library: Library, schema: Any, vocabulary: Vocabulary, ids: tuple[int, ...]) -> float:
    """Return how many of the answer's bytes follow from those before them, by the library's own account."""
    matcher = library.matcher(library.compile(schema))
    forced: set[int] = set()
    place = 0
    for id_ in ids:
        forced |= set(range(place, place + library.forced_bytes(matcher)))
        place += len(vocabulary.bytes_of([id_]))
        _accept(library, matcher, id_)
    return len(forced & set(range(place))) / place


def _gain_of_two_threads(library: Library, vocabulary: Vocabulary) -> float:
    """Return how much faster two threads walk two answers than one thread does; 1 means not at all."""
    ids = vocabulary.spell(json.dumps(LARGE_ANSWER))
    grammars = [library.compile(LARGE), library.compile(LARGE)]

    def walk_in_threads() -> None:
        threads = [Thread(target=_walk, args=(library, grammar, ids)) for grammar in grammars]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def walk_in_turn() -> None:
        for grammar in grammars:
            _walk(library, grammar, ids)

    clock = time.perf_counter
    gains = [_seconds(walk_in_turn, clock) / _seconds(walk_in_threads, clock) for _ in range(ROUNDS)]
    return round(statistics.median(gains), 2)


def _verdict(library: Library, vocabulary: Vocabulary, case: Case) -> str:
    try:
        grammar = library.compile(case.schema)
    except (ValueError, RuntimeError):
        return "refused"
    if not all(_takes(library, grammar, vocabulary, value) for value in case.valid):
        return "refuses valid values"
    if any(_takes(library, grammar, vocabulary, value) for value in case.invalid):
        return "lets invalid values pass"
    return "exact"


def _takes(library: Library, grammar: Any, vocabulary: Vocabulary, value: Any) -> bool:
    """Whether the value is accepted in one of the two usual spellings."""
    for separators in ((", ", ": "), (",", ":")):
        matcher = library.matcher(grammar)
        ids = vocabulary.spell(json.dumps(value, ensure_ascii=False, separators=separators))
        if all(library.accept(matcher, id_) for id_ in ids) and library.is_whole(matcher):
            return True
    return False


def _seconds(action: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    started = clock()
    action()
    return clock() - started


def _summary(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Return the medians in milliseconds, and the median of the rounds' ratios."""
    ratios = [second / first for first, second in zip(*seconds.values(), strict=True)]
    medians = {name: round(1000 * statistics.median(times), 4) for name, times in seconds.items()}
    return {**medians, "ratio": round(statistics.median(ratios), 2)}


def main() -> None:
    if sys.argv[1:2] == ["--cost-of"]:
        _print_cost(sys.argv[2])
        return
    result = measure()
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
