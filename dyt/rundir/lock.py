"""One run directory, one writer: a POSIX lock, which dies with its process, so that a stale one is simply free.

The lock file stands beside the run directories (``<parent>/.locks/<name>``), since ``resume=fresh`` renames those. It
says in plain words who holds it. POSIX locks are not inherited by loader workers and go between machines where the file
system carries them (NFSv4, Lustre, GPFS).
"""

import contextlib
import fcntl
import json
import os
import socket
import struct
import time
from pathlib import Path


class Held(ValueError):
    """Another process writes that run."""


class Lock:
    """A context in which this process alone writes the run's `directory`.

    Raises:
        Held: another process does; the line says which. OSError: the lock cannot be written, or there are no locks.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.path = directory.parent / ".locks" / directory.name

    def __enter__(self) -> "Lock":
        while True:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:  # the last holder tidied up just now
                continue
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):  # EAGAIN, EACCES: POSIX's words for held
                holder = os.read(file, 4096).decode(errors="replace")
                os.close(file)
                raise Held(f"{self.directory}: {_who(holder)}; wait for it, or set another out_root") from None
            except OSError as error:
                os.close(file)
                why = f"its file system has no locks: {error.strerror}; one on a local disk has"
                raise OSError(error.errno, why) from error
            try:  # its holder may have removed the file between our open and our lock
                current = os.stat(self.path).st_ino == os.fstat(file).st_ino
            except FileNotFoundError:
                current = False
            if current:
                break
            os.close(file)
        text = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%F %T")})
        os.ftruncate(file, 0)
        os.pwrite(file, text.encode(), 0)
        self._file = file
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            self.path.parent.rmdir()  # where no other run is locked
            self.path.parent.parent.rmdir()  # where nothing was written
        os.close(self._file)


def held(directory: Path) -> bool:
    """Whether a process has the lock of a run's directory; asks without taking it (Linux; elsewhere False)."""
    try:
        file = os.open(directory.parent / ".locks" / directory.name, os.O_RDWR)
    except OSError:
        return False
    try:
        asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # Linux's struct flock
        return struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK
    except (OSError, struct.error):
        return False
    finally:
        os.close(file)


def _who(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']} writes there since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process writes there"
