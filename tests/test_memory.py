"""Memory that is given back stays with the process for a while, and goes when nobody wants it."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from icis import memory
from icis.memory import freed_memory_kept

LARGE = 100 * 2**20
"""Bytes that glibc gives back at once."""


def page_faults(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def use_and_give_back():
    torch.full((LARGE // 4,), 1.0)


def measured():
    """Print the page faults of a large tensor's coming and going, and the memory held at the end.

    In a process of its own: what other tests have left in the heap would count.
    """

    def faults():  # of the later ones: small blocks in between first have to find their places
        return min(page_faults(use_and_give_back) for _ in range(10))

    use_and_give_back()
    before, found = resident(), [faults()]
    with freed_memory_kept(), freed_memory_kept():
        found.append(faults())
    print(*found, resident() - before)


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="speaks of glibc")
def test_large_tensors_cost_page_faults_only_where_memory_is_not_kept():
    command = [sys.executable, "-c", "from tests.test_memory import measured; measured()"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    usual, kept, held = map(int, done.stdout.split())
    pages = LARGE / resource.getpagesize()
    assert usual > pages / 2
    assert kept < pages / 10
    assert held < LARGE / 10, "the memory was not let go"


def test_the_last_of_several_lets_go(monkeypatch):
    calls = []
    monkeypatch.setattr(memory, "_set", lambda values: calls.append(values))
    with freed_memory_kept():
        with freed_memory_kept():
            pass
        assert calls == [memory.KEEPING]
    assert calls == [memory.KEEPING, memory.USUAL]


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    with freed_memory_kept():
        assert memory._users == 1
    assert memory._users == 0
