import subprocess
import sys
import threading

import pytest

from keras_metagraph.checkpoint.background import BackgroundWork, wait_for_all


def test_one_piece_of_work_at_a_time():
    work, go, done = BackgroundWork(), threading.Event(), []

    def first():
        go.wait()
        done.append(1)

    work.start(first)
    assert done == []
    starter = threading.Thread(target=lambda: work.start(lambda: done.append(2)))
    starter.start()
    go.set()
    starter.join()
    work.wait()
    assert done == [1, 2]


def fail():
    raise OSError("no space")


def test_error_comes_to_who_waits_and_only_once():
    work = BackgroundWork()
    work.start(fail)
    with pytest.raises(OSError, match="no space"):
        work.wait()
    work.wait()


def test_error_comes_to_who_starts_the_next():
    work, done = BackgroundWork(), []
    work.start(fail)
    with pytest.raises(OSError, match="no space"):
        work.start(lambda: done.append(1))
    assert done == []


def test_error_nobody_asked_for_is_a_warning():
    work = BackgroundWork()
    work.start(fail)
    wait_for_all()
    with pytest.warns(UserWarning, match="no space"):
        del work


@pytest.mark.parametrize(
    ("ending", "code"),
    [("", 0), ("raise KeyboardInterrupt", -2), ("raise ValueError", 1)],
)
def test_interpreter_waits_when_it_exits(ending, code, tmp_path):
    program = f"""
import time
from keras_metagraph.checkpoint.background import BackgroundWork

def write():
    time.sleep(0.5)
    open({str(tmp_path / "done")!r}, "w").close()

work = BackgroundWork()
work.start(write)
{ending}
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, timeout=300
    )
    assert done.returncode == code
    assert (tmp_path / "done").exists()


def test_child_of_a_fork_has_no_work_under_way(tmp_path):
    program = """
import os, threading
from keras_metagraph.checkpoint.background import BackgroundWork, wait_for_all

go, done = threading.Event(), []
work = BackgroundWork()
work.start(lambda: (go.wait(), done.append(1)))
child = os.fork()
if not child:
    work.wait()
    wait_for_all()
    os._exit(7 if done == [] else 1)
_, status = os.waitpid(child, 0)
go.set()
work.wait()
assert done == [1]
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, timeout=300
    )
    assert done.returncode == 7, done.stderr
