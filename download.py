"""Fetch a model from Hugging Face or ModelScope into a folder that `serveapi.py --model` can serve.

What arrives is kept in `<folder>.part` and gets its final name only when every file is whole, so a
folder without `.part` can be trusted, and the same command goes on where the last run stopped.
"""

import argparse
import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

#: Where models are kept unless told otherwise, seen from the folder of the project.
MODELS_FOLDER = Path("models")

#: The files that serving needs: weights that cannot hold code, their settings, the tokenizer's usual forms.
WANTED = (
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json"),
    *("chat_template.jinja", "chat_template.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"),
    *("*.model", "*.tiktoken"),
)

#: Some publishers add the same weights once more in their own form: not fetched twice.
DOUBLED = "consolidated*"

#: Both hubs name a model owner/name, each part beginning with a letter, digit or underscore.
NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)

#: In the model's folder, says what was fetched and how long each file is.
RECORD = "download.json"

#: Seconds that a hub has for an answer about a model.
ANSWER_SECONDS = 30

#: Length of a SHA-256 in hexadecimal digits; the hubs give shorter names (git's) for small files.
SHA256_DIGITS = 64

#: Exit status after Ctrl-C, as shells give it: 128 + SIGINT.
INTERRUPTED = 130


class DownloadError(Exception):
    """The model cannot be fetched; the message is for the person who asked for it."""


class RemoteFile(Struct, frozen=True):
    """A file on the hub; size in bytes and digest where the hub tells them."""

    path: str
    size: int | None
    digest: str | None


class Record(Struct, frozen=True):
    """What a folder holds, or will hold."""

    source: str
    name: str
    revision: str | None
    files: tuple[RemoteFile, ...]


class Hub(Protocol):
    """One model on one hub."""

    title: str

    def list_files(self) -> tuple[RemoteFile, ...]: ...

    def fetch(self, file: RemoteFile, folder: Path) -> None:
        """Put the file into the folder; a cut connection goes on where it was cut, in a later run too."""

    def explain(self, error: Exception) -> str:
        """Say in one line what an error of the hub's library means."""


class HuggingFace:
    """A model on Hugging Face, or wherever HF_ENDPOINT points."""

    title = "Hugging Face"

    def __init__(self, name: str, revision: str | None) -> None:
        import huggingface_hub.utils.logging  # noqa: F401  (resets its level when it is loaded)

        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        self._name = name
        self._revision = revision

    def list_files(self) -> tuple[RemoteFile, ...]:
        from huggingface_hub import HfApi

        model = HfApi().model_info(
            self._name, revision=self._revision, timeout=ANSWER_SECONDS, files_metadata=True
        )
        self._revision = model.sha  # from here on this commit, even if the branch moves
        return tuple(
            RemoteFile(file.rfilename, file.size, file.lfs.sha256 if file.lfs else file.blob_id)
            for file in model.siblings or ()
        )

    def fetch(self, file: RemoteFile, folder: Path) -> None:
        """Fetch over HTTP: `snapshot_download` would throw a half file away when it is stopped."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        target = folder / file.path
        partial = target.with_name(target.name + ".part")
        with partial.open("ab") as stream:
            http_get(
                hf_hub_url(self._name, file.path, revision=self._revision),
                stream,
                resume_size=stream.tell(),
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.path,
            )
        if not _has_digest(partial, file.digest):
            partial.unlink()
            raise DownloadError(f"{file.path} arrived damaged; the same command fetches it again")
        partial.rename(target)

    def explain(self, error: Exception) -> str:
        import httpx2
        from huggingface_hub import constants, errors

        match error:
            case errors.GatedRepoError():
                page = f"{constants.ENDPOINT}/{self._name}"
                return f"{self._name} is gated: accept its terms at {page}, then sign in with `hf auth login`"
            case errors.RepositoryNotFoundError():
                return f"no model {self._name} on {self.title} (if it is private: `hf auth login`)"
            case errors.RevisionNotFoundError():
                return f"{self._name} has no revision {self._revision} on {self.title}"
            case errors.HfHubHTTPError():
                return f"{self.title} answered {error.response.status_code} for {self._name}"
            case httpx2.HTTPError() | errors.OfflineModeIsEnabled():
                return f"cannot reach {self.title} at {constants.ENDPOINT}: {_first_line(error)}"
        return _first_line(error)


class ModelScope:
    """A model on ModelScope, or wherever MODELSCOPE_ENDPOINT points."""

    title = "ModelScope"

    def __init__(self, name: str, revision: str | None) -> None:
        from modelscope_hub import HubApi  # modelscope's own hub library, without the torch that it loads

        logging.getLogger("modelscope_hub").setLevel(logging.ERROR)
        self._api = HubApi()
        self._name = name
        self._revision = revision

    def list_files(self) -> tuple[RemoteFile, ...]:
        files = self._api.list_repo_files(self._name, "model", revision=self._revision)
        return tuple(
            RemoteFile(file.path, file.size or None, file.sha256) for file in files if not file.is_dir
        )

    def fetch(self, file: RemoteFile, folder: Path) -> None:
        self._api.download_file(
            self._name,
            "model",
            file.path,
            revision=self._revision,
            local_dir=folder,
            expected_sha256=file.digest,
            file_size=file.size,
        )

    def explain(self, error: Exception) -> str:
        import requests
        from modelscope_hub import errors

        match error:
            case errors.NotExistError():
                of_revision = f" with revision {self._revision}" if self._revision else ""
                return f"no model {self._name}{of_revision} on {self.title} (if it is private: `ms login`)"
            case errors.AuthenticationError() | errors.PermissionDeniedError():
                return f"{self.title} does not give {self._name} to you: sign in with `ms login`"
            case errors.NetworkError() | requests.RequestException():
                return f"cannot reach {self.title}: {_first_line(error)}"
        return _first_line(error)


HUBS: dict[str, type[HuggingFace] | type[ModelScope]] = {"huggingface": HuggingFace, "modelscope": ModelScope}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    options = _parse(arguments)
    hub: Hub | None = None
    try:
        if not NAME.fullmatch(options.name):
            raise DownloadError(f"a model's name is written owner/name, not {options.name!r}")
        target = options.into / options.name.partition("/")[2]
        wish = Record(options.source, options.name, options.revision, ())
        if not _is_whole(target, wish):
            hub = HUBS[options.source](options.name, options.revision)
            _download(hub, wish, target)
    except KeyboardInterrupt:
        print("\ndownload.py: stopped; the same command goes on where this one stopped", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # the edge of the program: whatever the libraries raise is told in one line
        print(f"download.py: {_explain(error, hub)}", file=sys.stderr)
        return 1
    print(f"Serve it with: python serveapi.py --model {target}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Fetch a model (safetensors, settings and tokenizer only) for serveapi.py to serve.",
        epilog="Example: python download.py zai-org/glm-4-9b-chat-hf. A download that was cut or stopped "
        "goes on with the same command. The hubs' own environment variables count: HF_ENDPOINT, HF_TOKEN, "
        "MODELSCOPE_ENDPOINT, MODELSCOPE_API_TOKEN.",
    )
    parser.add_argument("name", help="owner/name, as the hub writes it")
    parser.add_argument(
        "--source", choices=HUBS, default="huggingface", help="the hub (default: %(default)s)"
    )
    parser.add_argument(
        "--into",
        type=Path,
        default=MODELS_FOLDER,
        metavar="FOLDER",
        help="where the model's folder goes (default: %(default)s)",
    )
    parser.add_argument("--revision", help="a branch, tag or commit (default: the hub's main branch)")
    return parser.parse_args(arguments)


def _is_whole(target: Path, wish: Record) -> bool:
    """Whether the model is there already; a folder that has lost files becomes unfinished again."""
    if not target.exists():
        return False
    record = _read_record(target)
    if record is None:
        raise DownloadError(f"{target} is there and was not made by download.py: choose another --into")
    if (record.source, record.name, record.revision) != (wish.source, wish.name, wish.revision):
        held = f"{record.name} (revision {record.revision or 'default'}) from {record.source}"
        raise DownloadError(f"{target} holds {held}: choose another --into")
    lost = [file.path for file in record.files if not _is_there(target, file)]
    if lost:
        print(f"{target} has lost {', '.join(lost)}: fetching again")
        target.rename(_part(target))
        return False
    print(f"{target} is there and whole: nothing to do")
    return True


def _download(hub: Hub, wish: Record, target: Path) -> None:
    print(f"Asking {hub.title} for {wish.name}")
    files = _wanted(hub.list_files())
    if not any(fnmatchcase(file.path, "*.safetensors") for file in files):
        raise DownloadError(f"{wish.name} has no weights in safetensors on {hub.title}")
    part = _part(target)
    part.mkdir(parents=True, exist_ok=True)
    with _locked(part):
        _prepare(part, msgspec.structs.replace(wish, files=files))
        for position, file in enumerate(files, start=1):
            print(f"[{position}/{len(files)}] {file.path} ({_readable(file.size or 0)})", flush=True)
            if not _is_there(part, file):
                hub.fetch(file, part)
        part.rename(target)
    print(f"{wish.name} is whole in {target}")


def _wanted(files: Sequence[RemoteFile]) -> tuple[RemoteFile, ...]:
    """The files that serving needs, all from the top folder, small ones first."""
    chosen = [
        file
        for file in files
        if any(fnmatchcase(file.path, pattern) for pattern in WANTED)
        and "/" not in file.path
        and not fnmatchcase(file.path, DOUBLED)
    ]
    return tuple(sorted(chosen, key=lambda file: (file.size or 0, file.path)))


def _prepare(part: Path, record: Record) -> None:
    """Keep what an earlier run fetched if it is of the same files; see that the rest has room."""
    if _read_record(part) != record:
        for old in part.iterdir():
            old.unlink()
        (part / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record)))
    there = sum(file.stat().st_size for file in part.iterdir())
    needed = sum(file.size or 0 for file in record.files) - there
    free = shutil.disk_usage(part).free
    if needed > free:
        raise DownloadError(
            f"no space: {record.name} needs {_readable(needed)} more, {part.parent} has {_readable(free)}"
        )


@contextmanager
def _locked(part: Path) -> Iterator[None]:
    """Keep a second run out: two writers would spoil each other's half files."""
    handle = os.open(part, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DownloadError(f"another download.py is filling {part}") from None
    finally:
        os.close(handle)


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _read_record(folder: Path) -> Record | None:
    try:
        return msgspec.json.decode((folder / RECORD).read_bytes(), type=Record)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _is_there(folder: Path, file: RemoteFile) -> bool:
    path = folder / file.path
    return path.is_file() and file.size in (None, path.stat().st_size)


def _has_digest(path: Path, digest: str | None) -> bool:
    if digest is None or len(digest) != SHA256_DIGITS:
        return True
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == digest


def _explain(error: Exception, hub: Hub | None) -> str:
    match error:
        case DownloadError():
            return str(error)
        case OSError(errno=errno.ENOSPC):
            return "no space left on the disk; with more space, the same command goes on"
    return hub.explain(error) if hub else _first_line(error)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _readable(size: int) -> str:
    """Write a size in bytes for people, in decimal units as disks and hubs count."""
    for unit, bytes_of_unit in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_of_unit:
            return f"{size / bytes_of_unit:.1f} {unit}"
    return f"{size} bytes"


if __name__ == "__main__":
    sys.exit(main())
