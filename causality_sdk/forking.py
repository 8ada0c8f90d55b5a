"""What becomes of open queues when the process forks.

Neighbours: every `QueueFile` and every `Client` registers here; `schema` and `queue_file` hold
`OPENING` while they call SQLite on a file that no queue guards yet. Invariant: no other thread is
inside SQLite at the moment of a fork, and a child never uses or closes a connection of its parent.

A fork copies the mutexes inside SQLite as they are. One that another thread held would stay locked
in the child for ever, so the forking thread first takes every lock under which SQLite is called.
"""

from __future__ import annotations

import gc
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

OPENING = threading.RLock()
"""Held by whoever calls SQLite without the locks of a queue: to prepare, open or inspect a file.

Never while a file lock is taken or released: filelock has a gate of its own. A fork closes it first
and then waits for us, while we would wait at the gate."""

LOADING = threading.RLock()
"""Held by whoever loads modules beside other threads, and taken before `OPENING`.

In a child the thread that was loading them is gone: they would stay half loaded for ever."""

GATE_SECONDS = 2.0
"""How long a fork waits for a thread that loads filelock; an ordinary load takes 0.04 s."""


class ForkedQueue(Protocol):
    """An open queue file."""

    def hold_for_fork(self) -> None:
        """Takes every lock under which it calls SQLite."""

    def let_go_after_fork(self) -> None:
        """In the parent: releases them."""

    def leave_to_parent(self) -> None:
        """In the child: drops the connections without closing them."""


class ForkedClient(Protocol):
    """A client that may be used on both sides of a fork."""

    def _begin_anew_after_fork(self) -> None:
        """In the child: forgets what belongs to the parent."""


class _Fork:
    """What the thread that forks has taken, until both sides went on."""

    def __init__(self) -> None:
        self.held: list[ForkedQueue] = []
        self.collecting = gc.isenabled()
        self.has_loading = False
        self.has_opening = False


# Both are added to with OPENING held, so that the forking thread sees all.
_queues: weakref.WeakValueDictionary[int, ForkedQueue] = weakref.WeakValueDictionary()
_clients: weakref.WeakSet[ForkedClient] = weakref.WeakSet()
_forks: list[_Fork] = []  # under way, by one thread: a signal handler may fork inside of a fork
_added = 0
_inherited: set[tuple[int, int]] = set()  # device and inode of files that were open at a fork
_leaked: list[object] = []  # for a Python without ctypes
_loads_gate = False  # set with LOADING held: filelock is being loaded
_is_half_loaded = False  # in a child, for good: filelock can neither be used nor loaded again


def register_queue(queue: ForkedQueue) -> None:
    """From now on `queue` takes part in forks. With `OPENING` held."""
    global _added
    _added += 1  # the order in which locks are taken
    _queues[_added] = queue


def register_client(client: ForkedClient) -> None:
    """From now on `client` begins anew in children."""
    with OPENING:
        _clients.add(client)


def is_inherited(path: Path) -> bool:
    """Whether a parent of this process had the very file open when it forked.

    SQLite keeps its locks by inode, for the whole process. In the child it believes that it holds
    locks which only the parent has, so such a file must not be opened here.
    """
    if not _inherited:
        return False
    try:
        info = path.stat()
    except OSError:
        return False
    return (info.st_dev, info.st_ino) in _inherited


def note_inherited(path: Path) -> None:
    """This file was open when the process forked. In the child."""
    try:
        info = path.stat()
    except OSError:
        return
    _inherited.add((info.st_dev, info.st_ino))


class Inherited:
    """Stands in the child where a connection of the parent stood: every use of it is an error."""

    in_transaction = False

    def execute(self, *_arguments: Any) -> Any:
        """Raises `sqlite3.ProgrammingError`."""
        raise sqlite3.ProgrammingError("the queue belongs to the process that forked this one")

    executemany = executescript = execute

    def cursor(self) -> Inherited:
        """Itself: a cursor of it is an error, too."""
        return self

    def close(self) -> None:
        """Nothing: the parent closes it."""


@contextmanager
def loading_gate() -> Iterator[None]:
    """`LOADING` for the import of filelock. Raises `ImportError` in a child that can never have it.

    filelock registers its gate for forks in the middle of its import. A fork that comes right
    then closes the gate and waits for `LOADING`, while the import waits at the gate: so the fork
    gives up waiting, after `GATE_SECONDS`.
    """
    global _loads_gate
    with LOADING:
        if _is_half_loaded:
            raise ImportError("another thread was loading filelock when this process was forked")
        _loads_gate = True
        try:
            yield
        finally:
            _loads_gate = False


def disarm(connection: object) -> None:
    """In the child: makes whatever is done with a connection of the parent an error.

    A signal handler may fork in the middle of a transaction, and the child come back into it with
    the connection in its hands: its COMMIT would write into the parent's log, behind its back.
    """
    if not isinstance(connection, sqlite3.Connection):
        return
    with suppress(sqlite3.ProgrammingError):  # it is closed
        # To set it makes statements that were prepared before ask, too.
        connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
        connection.set_progress_handler(lambda: 1, 1)  # and those that are under way end


def leak(thing: object) -> None:
    """Makes sure that nothing ever frees `thing`, the end of the interpreter included.

    To close an inherited connection would work on files that the parent uses.
    """
    try:
        import ctypes
    except ImportError:  # built without libffi; then the end of the child closes it
        _leaked.append(thing)
    else:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _before() -> None:
    fork = _Fork()
    _forks.append(fork)
    fork.has_loading = LOADING.acquire(timeout=GATE_SECONDS if _loads_gate else -1)
    fork.has_opening = OPENING.acquire()
    # Until each connection is marked as the parent's: a client found as garbage would close it.
    gc.disable()
    for _, queue in sorted(_queues.items()):
        queue.hold_for_fork()
        fork.held.append(queue)


def _after_in_parent() -> None:
    fork = _forks.pop()
    while fork.held:
        fork.held.pop().let_go_after_fork()
    _after_in_both(fork)


def _after_in_child() -> None:
    global _is_half_loaded
    fork = _forks.pop()
    if not fork.has_loading:
        _is_half_loaded = True
        LOADING._at_fork_reinit()  # type: ignore[attr-defined]  # its holder is gone
    while fork.held:
        fork.held.pop().leave_to_parent()
    _queues.clear()
    for client in list(_clients):
        client._begin_anew_after_fork()
    _after_in_both(fork)


def _after_in_both(fork: _Fork) -> None:
    if fork.collecting:
        gc.enable()
    if fork.has_opening:
        OPENING.release()
    if fork.has_loading:
        LOADING.release()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
