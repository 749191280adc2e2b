"""Signals are for the main thread, whatever threads of ours are there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

from rubix_token_sync import threads


def test_what_a_thread_does_is_done() -> None:
    done: list[str] = []
    threads.daemon(done.append, "test", "x").join(10)
    assert done == ["x"]


def test_our_threads_leave_stop_signals_alone() -> None:
    masks: list[set[signal.Signals]] = []
    threads.daemon(lambda: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ())), "m").join(10)
    assert {signal.SIGINT, signal.SIGTERM} <= set(masks[0])
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert threading.current_thread() is threading.main_thread()


def test_a_stop_after_a_pause_reaches_a_sleeping_run() -> None:
    """After SIGCONT the main thread is the last to wake, and another would get the signal."""
    program = (
        "import signal, sys, time\n"
        "from rubix_token_sync import threads\n"
        "def stop(number, frame): sys.exit(7)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "for n in range(3): threads.daemon(time.sleep, f't{n}', 60)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as run:
            assert run.stdout is not None
            run.stdout.readline()
            for number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGTERM):
                os.kill(run.pid, number)
            assert run.wait(30) == 7
