"""Free memory as a process in a container sees it, from files laid out as Linux lays them out."""

from pathlib import Path

import psutil
import pytest

from engine.loading.free_memory import free_cpu_bytes

MIB = 1 << 20


def write(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def version_2(
    group: str, limit: object, used: int, reclaimable: int = 0, name: str = "max"
) -> dict[str, object]:
    folder = f"sys/fs/cgroup{group}"
    return {
        "proc/self/cgroup": "0::/",
        f"{folder}/memory.{name}": limit,
        f"{folder}/memory.current": used,
        f"{folder}/memory.stat": f"anon 5\ninactive_file {reclaimable}\nactive_file 7",
    }


def version_1(group: str, limit: int, used: int, reclaimable: int = 0) -> dict[str, object]:
    folder = f"sys/fs/cgroup/memory{group}"
    return {
        "proc/self/cgroup": f"5:cpu,cpuacct:{group}\n4:memory:{group}\n0::/",
        f"{folder}/memory.limit_in_bytes": limit,
        f"{folder}/memory.usage_in_bytes": used,
        f"{folder}/memory.stat": f"inactive_file 3\ntotal_inactive_file {reclaimable}",
    }


@pytest.mark.parametrize("name", ["max", "high"])
def test_a_container_has_what_its_group_leaves_and_the_page_cache_it_can_drop(tmp_path, name):
    write(tmp_path, version_2("", 50 * MIB, 30 * MIB, 4 * MIB, name))
    assert free_cpu_bytes(tmp_path) == 24 * MIB


def test_version_1_of_control_groups_counts_too(tmp_path):
    write(tmp_path, version_1("/docker/abc", 50 * MIB, 30 * MIB, 4 * MIB))
    assert free_cpu_bytes(tmp_path) == 24 * MIB


def test_the_tightest_of_the_groups_around_a_process_counts(tmp_path):
    write(tmp_path, version_2("/user/one", 90 * MIB, 10 * MIB))
    write(tmp_path, version_2("/user", 20 * MIB, 12 * MIB))
    (tmp_path / "proc/self/cgroup").write_text("0::/user/one\n")
    assert free_cpu_bytes(tmp_path) == 8 * MIB


def test_a_group_named_as_on_the_host_is_found_at_the_top_of_what_is_mounted(tmp_path):
    write(tmp_path, version_1("", 40 * MIB, 30 * MIB))
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/docker/named-as-on-the-host\n")
    assert free_cpu_bytes(tmp_path) == 10 * MIB


@pytest.mark.parametrize("files", [{}, version_2("", "max", 30), version_1("", 9223372036854771712, 30)])
def test_without_a_limit_the_machine_counts(tmp_path, files):
    available = psutil.virtual_memory().available
    assert free_cpu_bytes(write(tmp_path, files)) == pytest.approx(available, rel=0.2)


def test_a_group_that_is_over_its_limit_has_nothing_left(tmp_path):
    assert free_cpu_bytes(write(tmp_path, version_2("", 20 * MIB, 30 * MIB))) == 0
