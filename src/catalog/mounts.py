"""Which devices hold no files, but show a system's state: /proc, /sys, /dev and their like. A walk through them has no end."""

import os
import sys
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
# Of Linux (https://docs.kernel.org/filesystems/). Not among them: tmpfs, which holds files, and whatever a network or a user mounts.
_STATE = frozenset(
    "autofs binder binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs functionfs fusectl gadgetfs hugetlbfs mqueue "
    "nfsd nsfs proc pstore resctrl rpc_pipefs securityfs selinuxfs smackfs sysfs tracefs".split()
)


def state_devices() -> dict[int, str]:
    """Such file systems by their device (st_dev): the name of their kind."""
    if sys.platform == "linux":
        return _of_linux()
    try:
        return {os.stat("/dev").st_dev: "devfs"} if os.stat("/dev").st_dev != os.stat("/").st_dev else {}
    except OSError:
        return {}


def _of_linux() -> dict[int, str]:
    """By the kernel's own list (proc_pid_mountinfo(5)): "36 35 98:0 /root /where options [fields] - kind source options"."""
    try:
        lines = MOUNTS.read_text(errors="replace").splitlines()
    except OSError:  # no /proc, or one that is not this process's
        return {}
    devices = {}
    for line in lines:
        mount, _, told = line.partition(" - ")
        kind = told.partition(" ")[0]
        if kind in _STATE:
            major, _, minor = mount.split(" ")[2].partition(":")
            devices[os.makedev(int(major), int(minor))] = kind
    return devices
