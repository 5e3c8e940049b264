"""Large memory pages (2 MiB) that are kept, for commands that run large compiled CPU programs.

XLA allocates a program's temporary memory anew for every run (1 to 2 GB for a training step), and
the kernel provides and clears it page by page. With the usual pages of 4 KiB, this takes a tenth to
a sixth of the time of a step. Keeping freed memory in the process saves the clearing as well.
"""

import ctypes
import os
import sys
from pathlib import Path

VARIABLE = "GLIBC_TUNABLES"
TUNABLES = {
    "hugetlb": 1,  # large pages
    # Keep freed memory: take none in separate mappings, return none, and use one heap.
    "mmap_max": 0,
    "trim_threshold": 2**40,
    "arena_max": 1,
}
LARGE_PAGES = ":".join(f"glibc.malloc.{name}={value}" for name, value in TUNABLES.items())
_KERNEL_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def ask_for_large_pages() -> None:
    """Restart this command in the same process, so that glibc uses large pages and keeps them.

    glibc reads these settings only when a program starts. Nothing happens if the variable is
    already set, if the kernel does not grant large pages on request, or outside the project's own
    commands (in a test or a notebook, for example).
    """
    if VARIABLE in os.environ or not _is_own_command() or not _can_be_asked():
        return
    os.environ[VARIABLE] = LARGE_PAGES
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def keeps_freed_memory() -> bool:
    """Return True if this process was started with these settings, and with glibc."""
    return os.environ.get(VARIABLE) == LARGE_PAGES and hasattr(ctypes.CDLL(None), "malloc_trim")


def give_back_freed_memory() -> None:
    """Give all memory that is free now back to the kernel."""
    ctypes.CDLL(None).malloc_trim(0)


def _is_own_command() -> bool:
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return spec.name.partition(".")[0] in ("tools", "s3_jax")
    return Path(getattr(main, "__file__", None) or "").name == "s3"


def _can_be_asked() -> bool:
    try:
        return "[madvise]" in _KERNEL_SETTING.read_text()
    except OSError:
        return False
