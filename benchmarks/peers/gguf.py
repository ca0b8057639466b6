"""A checkpoint in llama.cpp's own format, made once by llama.cpp's own converter."""

import hashlib
import subprocess
import sys
from pathlib import Path

#: Seconds that the converter may take; half a billion weights take about ten.
CONVERT_SECONDS = 1800


def as_gguf(model: Path, converter: Path, weights: str, folder: Path) -> Path:
    """Return the model as a GGUF file with weights in `bf16` or `q8_0`, converting it if it is new.

    The converter runs in this Python, which has the torch and transformers that it needs. Raises
    CalledProcessError if it fails.
    """
    file = folder / f"{model.name}-{_identity(model)}-{weights}.gguf"
    if file.exists():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".part")
    command = [sys.executable, str(converter), str(model), "--outfile", str(draft), "--outtype", weights]
    subprocess.run(
        command, check=True, timeout=CONVERT_SECONDS, stdin=subprocess.DEVNULL, capture_output=True
    )
    draft.rename(file)
    return file


def _identity(model: Path) -> str:
    """Return eight digits that differ where the folder's files differ in name, size or time."""
    files = sorted(path for path in model.iterdir() if path.is_file())
    facts = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return hashlib.sha256("\n".join([str(model.resolve()), *facts]).encode()).hexdigest()[:8]
