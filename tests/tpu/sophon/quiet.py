"""Builds the library through which the simulator is loaded so that its threads rest; see quiet.c."""

import hashlib
import os
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

SOURCE = Path(__file__).with_name("quiet.c")

#: The name by which the simulator's library is needed, unlike that of its file.
NEEDED = "libcmodel_bm1684x.so"

COMPILE = ("cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")

#: Needed though nothing of it is called here; both lie in one folder.
LINK = ("-Wl,--no-as-needed", "-Wl,-rpath,$ORIGIN")

#: Seconds to compile those few lines.
COMPILE_SECONDS = 60


def quiet_simulator(libraries):
    """Return the library, built beside the simulator's if it is not there yet."""
    library = libraries / f"libquiet-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}.so"
    if not library.exists():
        with suppress(FileExistsError):
            (libraries / NEEDED).symlink_to("libcmodel.so")
        with tempfile.TemporaryDirectory(dir=libraries) as folder:
            built = Path(folder) / library.name
            command = (*COMPILE, *LINK, "-o", built, SOURCE, libraries / NEEDED)
            subprocess.run(command, check=True, timeout=COMPILE_SECONDS)
            os.replace(built, library)  # another process may build it, too
    return library
