"""Signals that end a run, Ctrl-C and a cluster's SIGTERM: held back for as long as a step is half taken."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. Whatever stops on Ctrl-C stops on it too."""


def raise_on_sigterm() -> None:
    """Let SIGTERM raise `Terminated` in this process, so that a run can write down how far it came."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handle)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back the first signal that ends a run until the end of the block; a second one gets through at once.

    Only the main thread receives signals; in others the block is as it would be without.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before: dict[int, Any] = {}

    def hold(number: int, frame: FrameType | None) -> None:
        if held:
            _deliver(before[number], number, frame)
        held.append(number)

    try:
        for number in ENDING:
            before[number] = signal.signal(number, hold)
        yield
    finally:
        for ending, handler in before.items():
            signal.signal(ending, handler)
        if held:
            _deliver(before[held[0]], held[0], None)


def _deliver(handler: Any, number: int, frame: FrameType | None) -> None:
    """Call the handler that was installed before, or do what the system does without one."""
    if callable(handler):
        handler(number, frame)
    elif handler == signal.SIG_DFL:
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
