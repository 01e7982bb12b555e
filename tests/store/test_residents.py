"""Gateways on one folder know of each other."""

import subprocess
import sys
from pathlib import Path

from gateway.store.residents import Resident, residents, residing

FIRST = Resident(1, "http://127.0.0.1:8080", "http://127.0.0.1:8080")
SECOND = Resident(2, "http://127.0.0.1:8081")


def test_whoever_comes_is_told_who_is_there_already_and_each_leaves_for_itself(tmp_path: Path) -> None:
    with residing(tmp_path / "data", FIRST) as before:
        assert before == []
        with residing(tmp_path / "data", SECOND) as others:
            assert others == [FIRST]
            assert residents(tmp_path / "data") == [FIRST, SECOND]
        assert residents(tmp_path / "data") == [FIRST]
    assert residents(tmp_path / "data") == []


def test_two_that_say_the_same_of_themselves_are_two(tmp_path: Path) -> None:
    """As in two containers on one folder, each of which is PID 1 at the same port."""
    with residing(tmp_path, FIRST), residing(tmp_path, FIRST) as others:
        assert others == [FIRST]


def test_one_that_was_killed_is_there_no_more(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys, pathlib; from gateway.store.residents import *\n"
        "with residing(pathlib.Path(sys.argv[1]), Resident(3)): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert [path.name for path in tmp_path.iterdir()] == ["gateway-0.lock"]
    assert residents(tmp_path) == []
    with residing(tmp_path, FIRST) as others:
        assert others == []
        assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_takes_no_file_keeps_nobody_from_running(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with residing(tmp_path / "file", FIRST) as others:
        assert others == []
    assert residents(tmp_path / "file") == []


def test_one_that_has_said_nothing_yet_is_there_all_the_same(tmp_path: Path) -> None:
    with residing(tmp_path, FIRST):
        (tmp_path / "gateway-0.lock").write_text("")
        assert [str(each) for each in residents(tmp_path)] == ["just started"]
    assert str(FIRST) == "PID 1, http://127.0.0.1:8080"
