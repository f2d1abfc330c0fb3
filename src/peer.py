"""Who is at the other end of a Unix socket. The kernel tells: nothing the peer sends can change it."""

import errno
import os
import socket
import struct
import sys
from typing import Protocol


class HasOptions(Protocol):
    """A socket, or what asyncio shows of one."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


def require_same_user(connection: HasOptions | None) -> None:
    """Raises PermissionError, an OSError, where the peer of a connected Unix socket runs as another user than this process."""
    user = None if connection is None else _user_of(connection)
    if user != os.geteuid():
        raise PermissionError(errno.EPERM, f"a process of another user (uid {user}) is at the other end")


def _user_of(connection: HasOptions) -> int:
    """Its effective user id when it connected, or began to listen."""
    if sys.platform == "linux":  # struct ucred of unix(7): pid, uid, gid
        _, user, _ = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    else:  # macOS, sys/un.h and sys/ucred.h: SOL_LOCAL, LOCAL_PEERCRED and struct xucred, which begins with version and uid
        _, user = struct.unpack_from("II", connection.getsockopt(0, 1, 76))
    return int(user)
