"""What becomes of open queues when the process forks.

Neighbours: every `QueueFile` and every `Client` registers here; `schema` and `queue_file` hold
`OPENING` while they call SQLite on a file that no queue guards yet. Invariant: no thread is inside
SQLite at the moment of a fork, and a child never uses or closes a connection of its parent.

A fork copies the mutexes inside SQLite as they are. One that another thread held would stay locked
in the child for ever, so the forking thread first takes every lock under which SQLite is called.
"""

from __future__ import annotations

import gc
import os
import sqlite3
import threading
import weakref
from pathlib import Path
from typing import Any, Protocol

OPENING = threading.RLock()
"""Held by whoever calls SQLite without the locks of a queue: to prepare, open or inspect a file.

Never while a file lock is taken: filelock has a gate of its own that a fork closes."""

LOADING = threading.RLock()
"""Held by the sender's thread while it loads modules, and taken before `OPENING`.

In a child the thread that was loading them is gone: they would stay half loaded for ever."""


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


# Both are added to with OPENING held, so that the forking thread sees all.
_queues: weakref.WeakValueDictionary[int, ForkedQueue] = weakref.WeakValueDictionary()
_clients: weakref.WeakSet[ForkedClient] = weakref.WeakSet()
_held: list[ForkedQueue] = []  # by the thread that forks, until both sides went on
_added = 0
_collecting = False  # whether the garbage collector was on before the fork
_inherited: set[tuple[int, int]] = set()  # device and inode of files that were open at a fork
_leaked: list[object] = []  # for a Python without ctypes


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
    global _collecting
    LOADING.acquire()
    OPENING.acquire()
    # Until each connection is marked as the parent's: a client found as garbage would close it.
    _collecting = gc.isenabled()
    gc.disable()
    for _, queue in sorted(_queues.items()):
        queue.hold_for_fork()
        _held.append(queue)


def _after_in_parent() -> None:
    while _held:
        _held.pop().let_go_after_fork()
    _after_in_both()


def _after_in_child() -> None:
    while _held:
        _held.pop().leave_to_parent()
    _queues.clear()
    for client in list(_clients):
        client._begin_anew_after_fork()
    _after_in_both()


def _after_in_both() -> None:
    if _collecting:
        gc.enable()
    OPENING.release()
    LOADING.release()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
