"""Processes that start in no time: forked from one that has imported volfs already.

    done = fork_server.run([sys.executable, "-c", code, store], env={**os.environ, "VOLFS_CRASH_AT": "commit.ref"})
    with fork_server.Popen([sys.executable, "-m", "volfs", "--store", store, "ls"], stdout=PIPE) as process: ...

Both are those of :mod:`subprocess`. Most of what a process of volfs costs in a test is what it imports, half a second:
a fork has that already, and is else a process like any other. It has its own streams, directory, environment, arguments
(also for who looks into the process table), may be killed at any instant, and is a child of the test's process, which
waits for it.

Decided here: how a process is forked instead of executed. A command is executed as ever where a fork would not be the
same: if it is not ``python -c`` or ``python -m``, if its environment has what Python or a library reads when it is
loaded, or if it has to become another user. Tests of what is imported, of memory, and of options of Python's own start
their processes by :mod:`subprocess`.

The server has one thread, as only such a process can be forked without fear. It forks twice, and the process between
ends at once, while the tests' process asks for orphans (``PR_SET_CHILD_SUBREAPER``): so the new process becomes its
child.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.kits.paths import ROOT

#: What a fork has imported: the daemon, the command, and what tests use to make versions in other processes.
IMPORTED = (
    "volfs.fuse.daemon",
    "volfs.fuse.launcher",
    "volfs.cli.frame",
    "volfs.cli.commits",
    "volfs.cli.imports",
    "volfs.cli.remotes",
    "volfs.versions.check.fsck",
    "volfs.versions.combine",
    "tests.kits.stores",
    "tests.kits.cells",
    "zarr",
)
_PR_SET_CHILD_SUBREAPER = 36
#: Room for the arguments of a fork, where the process table looks for them.
_ARGUMENT_BYTES = 16_384
#: Descriptors from here on are the server's own; those below may be any that a process is handed.
_OWN_DESCRIPTORS = 600
_MESSAGE_BYTES = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)


class Popen(subprocess.Popen[Any]):
    """:class:`subprocess.Popen`, forked where that is the same."""

    def _execute_child(self, args: Any, executable: str, preexec_fn: Any, *rest: Any) -> None:
        close_fds, pass_fds, cwd, env, _, _, _, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *more = rest
        _, gid, gids, uid, umask, start_new_session, process_group = more
        environment = {**os.environ} if env is None else {os.fsdecode(k): os.fsdecode(v) for k, v in env.items()}
        asked = (preexec_fn, None if close_fds else True, gid, gids, uid)
        server = None
        args = [args] if isinstance(args, str | os.PathLike) else list(map(os.fsdecode, args))
        if asked == (None,) * 5 and umask == process_group == -1 and _is_understood(args):
            server = _server_for(environment)
        if server is None:
            super()._execute_child(args, executable, preexec_fn, *rest)  # type: ignore[misc]
            return
        streams = [own if own != -1 else number for number, own in enumerate((p2cread, c2pwrite, errwrite))]
        self.pid = server.fork(args, environment, os.fspath(cwd or Path.cwd()), start_new_session, streams, pass_fds)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    input: Any = None,
    timeout: float | None = None,
    check: bool = False,
    capture_output: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """:func:`subprocess.run`, forked where that is the same."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with Popen(command, **options) as process:
        try:
            said, complained = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, said, complained)
    if check:
        done.check_returncode()
    return done


@contextlib.contextmanager
def program(path: Path, *arguments: str) -> Iterator[Path]:
    """While the block lasts, a program at ``path`` that does what ``python ARGUMENTS`` does, for a shell's scripts.

    It is Python without anything imported, hands its streams to the process of the tests, and ends as the fork does.
    """
    name = f"\0volfs-tests-{os.getpid()}-{path}"[:100]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        path.write_text(_CLIENT.format(python=sys.executable, name=name))
        path.chmod(0o755)
        threading.Thread(target=_answer_programs, args=(listener, arguments), daemon=True).start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)


_CLIENT = """#!{python} -ISE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as tests:
    tests.connect({name!r})
    message = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]) + "\\n"
    socket.send_fds(tests, [message.encode()], [0, 1, 2])
    status = int(tests.recv(100))
if status < 0:
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


def _answer_programs(listener: socket.socket, arguments: tuple[str, ...]) -> None:
    with contextlib.suppress(OSError):  # the block has ended
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_answer_program, args=(client, arguments), daemon=True).start()


def _answer_program(client: socket.socket, arguments: tuple[str, ...]) -> None:
    with client:
        message, streams, _, _ = socket.recv_fds(client, _MESSAGE_BYTES, 3)
        while not message.endswith(b"\n"):
            message += client.recv(_MESSAGE_BYTES)
        said, folder, environment = json.loads(message)
        try:
            process = Popen(
                [sys.executable, *arguments, *said],
                cwd=folder,
                env=environment,
                **dict(zip(("stdin", "stdout", "stderr"), streams, strict=True)),
            )
        finally:
            for stream in streams:
                os.close(stream)
        client.sendall(str(process.wait()).encode())


# ------------------------------------------------------------------------------------------ in the process of the tests


def _is_understood(args: list[str]) -> bool:
    return args[0] == sys.executable and (args[1:2] in (["-c"], ["-m"]) or args[1:3] == ["-P", "-m"])


def _server_for(environment: dict[str, str]) -> _Server | None:
    """The server whose forks are as if they had been executed with this environment."""
    for name in {*environment, *os.environ}:
        if name.startswith(("PYTHON", "LD_")) and environment.get(name) != os.environ.get(name):
            return None
    with _lock:
        native = environment.get("VOLFS_NATIVE", "")
        if native not in _servers or not _servers[native].is_running:
            _servers[native] = _Server({**os.environ, "VOLFS_NATIVE": native})
        return _servers[native]


class _Server:
    """A process that forks, and what is said to it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE_BYTES)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno()), " " * _ARGUMENT_BYTES],
                cwd=ROOT,
                env={**environment, "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        atexit.register(self.end)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        self._ours.close()
        self._process.wait()

    def fork(
        self,
        args: list[str],
        environment: dict[str, str],
        folder: str,
        new_session: bool,
        streams: list[int],
        handed: tuple[int, ...],
    ) -> int:
        """Start a process, as a child of this one; returns its number."""
        request = {
            "args": args,
            "environment": environment,
            "folder": folder,
            "session": new_session,
            "umask": _umask(),
            "as": [0, 1, 2, *handed],
        }
        with _lock:
            _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                socket.send_fds(self._ours, [json.dumps(request).encode()], [*streams, *handed])
                answer = self._ours.recv(100)
            finally:
                _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        assert answer, "the server of forks has ended; what it said is above"
        return int(answer)


_servers: dict[str, _Server] = {}
_lock = threading.RLock()


def _umask() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)


# -------------------------------------------------------------------------------------------------------- in the server


def _serve(descriptor: int) -> None:
    """Fork whenever asked to, until nobody asks any more. Returns in each fork's process only by its end."""
    for name in IMPORTED:
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads is not to be forked"
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _OWN_DESCRIPTORS)
    os.close(descriptor)
    requests = socket.socket(fileno=moved)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's: the tests end this process by ending to ask
    gc.collect()
    gc.freeze()
    while True:
        message, received, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES, 253)
        if not message:
            return
        numbers, answer = os.pipe()
        between = os.fork()
        if between == 0:
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                while os.getppid() == parent:
                    time.sleep(0.0002)
                os.close(numbers)
                os.close(answer)
                requests.close()
                _become(json.loads(message), received)
            os.write(answer, str(pid).encode())
            os._exit(0)
        os.close(answer)
        os.waitpid(between, 0)  # now the process is a child of who has asked for it
        with os.fdopen(numbers, "rb") as number:
            requests.send(number.read())
        for fd in received:
            os.close(fd)


def _become(request: dict[str, Any], received: list[int]) -> None:
    """Be the process that was asked for."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OWN_DESCRIPTORS) for fd in received]
    for fd in received:
        os.close(fd)
    for fd, wanted in zip(high, request["as"], strict=True):
        os.dup2(fd, wanted)
        os.close(fd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["session"]:
        os.setsid()
    os.umask(request["umask"])
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    args: list[str] = request["args"]
    _show_arguments(args)
    _open_streams()
    status = _status_of(args)
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as Python does at its end
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)  # nothing is torn down: to touch all that was imported is most of what an end costs


def _show_arguments(args: list[str]) -> None:
    """Have the process table show these arguments: they lie where the kernel put those of the server."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    shown = b"".join(os.fsencode(word) + b"\0" for word in args)[: end - start - 1]
    ctypes.memmove(start, shown.ljust(end - start, b"\0"), end - start)


def _open_streams() -> None:
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = io.open(0, closefd=False)  # noqa: UP020, SIM115
    for number, name, errors in ((1, "stdout", "strict"), (2, "stderr", "backslashreplace")):
        raw = io.open(number, "wb", closefd=False, buffering=0 if unbuffered else -1)  # noqa: UP020, SIM115
        lines = number == 2 or os.isatty(number)
        stream = io.TextIOWrapper(raw, errors=errors, line_buffering=lines, write_through=unbuffered)  # type: ignore[arg-type]
        setattr(sys, name, stream)


def _status_of(args: list[str]) -> int:
    """Run a command line as Python does; returns the exit status."""
    try:
        _main(args)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 1
    return 0


def _main(args: list[str]) -> None:
    options = args[1:]
    safe = options[0] == "-P"
    kind, what, *rest = options[1:] if safe else options
    sys.orig_argv = args
    if kind == "-c":
        main = ModuleType("__main__")
        main.__dict__["__builtins__"] = __builtins__
        sys.modules["__main__"] = main
        sys.argv = ["-c", *rest]
        sys.path.insert(0, "")
        exec(compile(what, "<string>", "exec"), main.__dict__)
        return
    sys.argv = [what, *rest]
    if not safe:
        sys.path.insert(0, os.getcwd())
    if what in sys.modules and not hasattr(sys.modules[what], "__path__"):
        del sys.modules[what]  # it runs as __main__, as if it had not been imported
    runpy.run_module(what, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        _serve(int(sys.argv[1]))
