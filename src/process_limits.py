"""What this process, and every process that it starts, gets of the kernel: descriptors, the mode of new files, core files."""

import contextlib
import os
import resource

MOST_DESCRIPTORS = 65_536  # open files and sockets of a process


def keep_new_files_private() -> None:
    """Nobody but this user may use what is made from here on, whatever umask a shell, a container or a service manager set."""
    os.umask(0o077)


def forbid_core_dumps() -> None:
    """A core file holds the prompts and keys that were in memory. Not to be undone: the hard limit is lowered too."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def raise_descriptor_limit() -> None:
    """Shells hand on 1024, macOS 256, where the system allows far more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(MOST_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower bound that it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
