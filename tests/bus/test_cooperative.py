import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_client_works_where_gevent_has_patched_everything(tmp_path_factory):
    folder = tmp_path_factory.mktemp("green")
    process = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-m", "tests.bus.cooperative_gateway", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert found.pop("longest_pause") < 0.5
    assert found == {
        "read": 5000,
        "killed_is_dead": True,
        "endings": ["draining"],
        "has_stopped": True,
        "after": ["draining"],
    }
    assert not list(folder.iterdir())
