"""Train the demonstration model from scratch: `python -m demo.train`; about 90 minutes on two CPU cores."""

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from torch.multiprocessing.spawn import spawn
from torch.optim import Optimizer
from transformers import PreTrainedTokenizerFast

from demo.conversations import Conversations
from demo.embeddings import start_near_topics, start_with_likeness
from demo.examples import Examples
from demo.network import Losses, Network, make_config, save_model
from demo.packing import Packer
from demo.sharing import join, share_gradients
from demo.tokenizer import train_tokenizer
from demo.topics import Topic, load_topics

#: Sizes of catalogues: the smallest, the largest of the first minutes, and the largest of all.
SMALLEST_CATALOGUE, FIRST_LARGEST, LARGEST_CATALOGUE = 5, 8, 64
#: Part of the time after which catalogues have all sizes.
CURRICULUM_SHARE = 0.5
#: Steps until the learning rate has risen, and the part of it that is left at the end.
WARMUP_STEPS, LAST_RATE = 100, 0.02
GRADIENT_LIMIT, WEIGHT_DECAY = 1.0, 0.05
#: Steps between two lines of the log, and seconds between two checkpoints.
LOG_EVERY, SAVE_SECONDS = 100, 240


@dataclass
class Progress:
    """How far training has come; saved with the weights."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0


class Training:
    """One run: the network, its optimizer, and the text it learns from."""

    def __init__(self, options: argparse.Namespace, rank: int = 0) -> None:
        topics = load_topics()
        self.tokenizer = _tokenizer(options, topics)
        packer = Packer(self.tokenizer, len(topics))
        self.examples = Examples(topics, packer)
        self.held_out = Examples(topics, packer, held_out=True)
        torch.manual_seed(options.seed)
        self.network = Network(make_config(self.tokenizer, options.layers, options.hidden), len(topics))
        start_near_topics(self.network, self.tokenizer, topics)
        start_with_likeness(self.network)
        self.optimizers = make_optimizers(self.network)
        self.options = options
        self._rank = rank
        self.progress = Progress()
        self._checkpoint = Path(options.checkpoint)
        if options.resume:
            self._load()
        if options.compile:
            for layer in self.network.glm.model.layers:
                layer.compile()

    def run(self) -> None:
        """Train until the minutes are over, counted over all resumed runs; save on the way and at the end."""
        started = time.monotonic() - self.progress.seconds
        saved_seconds = self.progress.seconds
        while self.progress.seconds < self.options.minutes * 60:
            losses = self._step(started)
            if self._rank != 0:
                continue
            if self.progress.step % LOG_EVERY == 0:
                self._log(losses)
            if self.progress.seconds - saved_seconds > SAVE_SECONDS:
                self._save()
                saved_seconds = self.progress.seconds
        if self._rank == 0:
            self._save()

    def _step(self, started: float) -> Losses:
        fraction = self.progress.seconds / (self.options.minutes * 60)
        rate = learning_rate(self.options.rate, self.progress.step, fraction)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        seed = f"{self.options.seed}:{self.progress.step}"
        size = catalogue_size(fraction, Random(seed))
        batch = self.examples.batch(size, self.options.tokens, Random(f"{seed}:{self._rank}"))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses: Losses = self.network(batch)
        losses.total.backward()  # type: ignore[no-untyped-call]
        self.progress.seconds = share_gradients(self.network.parameters(), time.monotonic() - started)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_LIMIT)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.progress.step += 1
        self.progress.tokens += batch.ids.numel() * self.options.processes
        return losses

    def _log(self, losses: Losses) -> None:
        """One line of JSON: losses of the last batch, and by size how many held-out decisions are right."""
        random = Random(0)
        line = {
            **asdict(self.progress),
            "rate": self.optimizers[0].param_groups[0]["lr"],
            "answer": losses.answer,
            "topic": losses.topic,
            "ordinal": losses.ordinal,
            "decisions_right": losses.decisions_right / max(1, losses.decisions),
            "topics_right": losses.topics_right,
            "guides": losses.guides,
            "held_out": {size: self._held_out_accuracy(size, random) for size in (8, 25, 60)},
        }
        text = json.dumps(
            {name: round(value, 5) if isinstance(value, float) else value for name, value in line.items()}
        )
        print(text, flush=True)
        with Path(self.options.log).open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    @torch.no_grad()
    def _held_out_accuracy(self, size: int, random: Random) -> float:
        batch = self.held_out.batch(size, 1024, random)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses: Losses = self.network(batch)
        return round(losses.decisions_right / max(1, losses.decisions), 3)

    def _save(self) -> None:
        save_model(self.network, self.tokenizer, Path(self.options.out))
        state = {
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            **asdict(self.progress),
        }
        torch.save(state, self._checkpoint)

    def _load(self) -> None:
        state = torch.load(self._checkpoint)
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(state["step"], state["seconds"], state["tokens"])


def _tokenizer(options: argparse.Namespace, topics: Sequence[Topic]) -> PreTrainedTokenizerFast:
    """A resumed run keeps its tokenizer, even where the texts have changed since."""
    if options.resume:
        kept: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(options.out)
        return kept
    return train_tokenizer(topics, Conversations(topics))


def make_optimizers(network: Network) -> tuple[Optimizer, Optimizer]:
    """Muon for the matrices of the layers, AdamW for everything else."""
    layers = network.glm.model.layers
    matrices = [parameter for parameter in layers.parameters() if parameter.ndim == 2]
    matrix_ids = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in network.parameters() if id(parameter) not in matrix_ids]
    return (
        torch.optim.Muon(matrices, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True),
    )


def learning_rate(peak: float, step: int, fraction: float) -> float:
    """Linear warm-up over steps, then a cosine over the time that is given."""
    cosine = LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * min(1.0, fraction))) / 2
    return peak * min(1.0, (step + 1) / WARMUP_STEPS) * cosine


def catalogue_size(fraction: float, random: Random) -> int:
    """Small catalogues first, so that matching forms early; later all sizes, small ones more often."""
    grown = math.pow(min(1.0, fraction / CURRICULUM_SHARE), 2)
    largest = FIRST_LARGEST + (LARGEST_CATALOGUE - FIRST_LARGEST) * grown
    return round(SMALLEST_CATALOGUE + (largest - SMALLEST_CATALOGUE) * math.pow(random.random(), 1.3))


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.train", description=__doc__)
    parser.add_argument("--minutes", type=float, default=85, help="how long to train (default: 85)")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint instead of from nothing"
    )
    parser.add_argument("--out", default="models/demo", help="folder for weights and tokenizer")
    parser.add_argument(
        "--checkpoint", default="/tmp/lectern-demo.pt", help="file with everything --resume needs"
    )
    parser.add_argument(
        "--log", default="/tmp/lectern-demo.jsonl", help="file that gets one line of JSON now and then"
    )
    parser.add_argument("--layers", type=int, default=6, help="layers of the model")
    parser.add_argument("--hidden", type=int, default=256, help="width of the model, a multiple of 64")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="highest learning rate")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens in a step of each process")
    parser.add_argument(
        "--processes", type=int, default=2, help="processes of one thread each; 1: torch decides"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the weights and the text")
    parser.add_argument("--compile", action="store_true", help="compile the layers (needs a C++ compiler)")
    return parser.parse_args(arguments)


def run(rank: int, options: argparse.Namespace, folder: str) -> None:
    """What each process does."""
    if options.processes > 1:
        join(rank, options.processes, str(Path(folder) / "meeting"))
    Training(options, rank).run()


def main() -> None:
    """Start the processes and wait for them."""
    options = parse_options()
    with TemporaryDirectory() as folder:
        spawn(run, (options, folder), nprocs=options.processes)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
