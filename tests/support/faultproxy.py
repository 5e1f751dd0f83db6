"""A TCP relay that misbehaves on request, to stand before a database, Redis or a provider.

    with fault_proxy("127.0.0.1", 5432) as proxy:
        ... connect to 127.0.0.1:proxy.port ...
        proxy.latency_s = 0.2        # each piece, in both directions, is passed on so much later
        proxy.cut_after_bytes = 100  # a connection ends when so much came back through it (counted from now)
        proxy.is_blackhole = True    # new connections are taken and never answered, old ones carry nothing
        proxy.pause(); proxy.resume()  # nothing is passed on meanwhile, and nothing is lost
        proxy.refuse(); proxy.listen() # connections are refused, as by a server that is down
        proxy.reset()                # every open connection is torn down with RST

Everything can be changed while connections are open.
"""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PIECE_BYTES = 65_536
_BACKLOG = 1024
_LOOK_S = 0.02
_RST = struct.pack("ii", 1, 0)


class FaultProxy:
    """The relay. It listens on `port` of 127.0.0.1."""

    def __init__(self, host: str, port: int) -> None:
        self.latency_s = 0.0
        self.is_blackhole = False
        self._cut_after: int | None = None
        self._target = (host, port)
        self._goes_on = threading.Event()
        self._goes_on.set()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_closed = False
        self._listener = self._listening(0)
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0

    @property
    def cut_after_bytes(self) -> int | None:
        """How much may still come back through each connection; None for any amount."""
        return self._cut_after

    @cut_after_bytes.setter
    def cut_after_bytes(self, count: int | None) -> None:
        self._cut_after = count

    def pause(self) -> None:
        """Pass nothing on for now."""
        self._goes_on.clear()

    def resume(self) -> None:
        """Pass on again, what has waited first."""
        self._goes_on.set()

    def refuse(self) -> None:
        """Refuse new connections, and reset the open ones."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.reset()

    def listen(self) -> None:
        """Take connections again, on the same port."""
        if self._listener is None:
            self._listener = self._listening(self.port)

    def reset(self) -> None:
        """Tear down every open connection with RST."""
        with self._lock:
            sockets, self._open = self._open, set()
        for each in sockets:
            with suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        for each in sockets:
            with suppress(OSError):
                # Wakes the thread that reads from it.
                each.shutdown(socket.SHUT_RD)
            each.close()

    def close(self) -> None:
        """Stop for good."""
        self._is_closed = True
        self.resume()
        self.refuse()

    def _listening(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._join, args=(caller,), daemon=True).start()

    def _join(self, caller: socket.socket) -> None:
        with self._lock:
            self._open.add(caller)
        try:
            server = socket.create_connection(self._target)
        except OSError:
            self._drop(caller)
            return
        for each in (caller, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open.add(server)
        threading.Thread(
            target=self._pass_on, args=(caller, server), kwargs={"is_answer": False}, daemon=True
        ).start()
        self._pass_on(server, caller, is_answer=True)

    def _pass_on(self, source: socket.socket, sink: socket.socket, *, is_answer: bool) -> None:
        passed, limit = 0, None
        with suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                time.sleep(self.latency_s)
                self._goes_on.wait()
                while self.is_blackhole and not self._is_closed:
                    time.sleep(_LOOK_S)
                if is_answer and self._cut_after != limit:
                    limit, passed = self._cut_after, 0
                if is_answer and limit is not None and passed + len(piece) >= limit:
                    sink.sendall(piece[: limit - passed])
                    break
                sink.sendall(piece)
                passed += len(piece)
        for each in (source, sink):
            self._drop(each)

    def _drop(self, connection: socket.socket) -> None:
        with self._lock:
            if connection not in self._open:
                return
            self._open.remove(connection)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


@contextmanager
def fault_proxy(host: str, port: int) -> Iterator[FaultProxy]:
    """Run a relay to a server, on a free port of 127.0.0.1."""
    proxy = FaultProxy(host, port)
    try:
        yield proxy
    finally:
        proxy.close()
