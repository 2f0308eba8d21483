"""Signals wait for the end of a step and are then what they would have been."""

import os
import signal
import threading

import pytest

from zo_runner.training.interrupts import Terminated, raise_on_sigterm, uninterrupted

pytestmark = pytest.mark.usefixtures("handlers")


def send(number):
    os.kill(os.getpid(), number)


def block(done, *numbers):
    """A block that receives signals and notes how far it came."""
    with uninterrupted():
        for number in numbers:
            send(number)
            done.append(number)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_within_a_block_is_raised_at_its_end_and_once(number, error):
    raise_on_sigterm()
    before = signal.getsignal(number)
    done = []
    with pytest.raises(error):
        block(done, number)
    assert done == [number]
    assert signal.getsignal(number) is before
    block(done)


def test_a_second_signal_gets_through_at_once():
    done = []
    with pytest.raises(KeyboardInterrupt):
        block(done, signal.SIGINT, signal.SIGINT)
    assert done == [signal.SIGINT]


def test_without_a_handler_of_its_own_a_process_is_told_all_the_same():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(Terminated):
        block([], signal.SIGTERM)


def test_a_signal_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    done = []
    block(done, signal.SIGINT, signal.SIGINT)
    assert len(done) == 2


def test_an_error_of_the_block_is_not_lost():
    with pytest.raises(ValueError, match="its own"), uninterrupted():
        raise ValueError("its own")


def test_other_threads_receive_no_signals_and_need_no_handlers():
    done = []

    def work():
        raise_on_sigterm()
        with uninterrupted():
            done.append("block")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["block"]
