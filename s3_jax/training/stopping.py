"""Clean shutdown of a run on a signal, or before its machine is preempted."""

import http.client
import os
import signal
import threading
import urllib.request
from pathlib import Path
from types import FrameType
from typing import Any

HOST = "GCE_METADATA_HOST"  # names another host, as in tests; Google's libraries read it too
MACHINE = Path("/sys/class/dmi/id/product_name")
# Metadata that announce the loss of the machine: 30 seconds ahead for a spot VM, minutes ahead for
# maintenance, which TPU VMs do not survive.
NOTICES = {"preempted": "TRUE", "maintenance-event": "TERMINATE_ON_HOST_MAINTENANCE"}
WAIT = 60  # seconds that a request stays open; the server answers as soon as the value changes
PAUSE = 5.0  # seconds before a failed request is repeated


class StopRequest:
    """Context manager that records SIGTERM and SIGINT; a second signal ends the process at once.

    On Google Cloud machines, including TPU VMs, preemption notices are recorded too.

    requested: True if the run should end after the current step.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}
        self._left = threading.Event()

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        host = metadata_host()
        for name, said in NOTICES.items() if host else ():
            threading.Thread(target=self._listen, args=(host, name, said), daemon=True).start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._left.set()
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _listen(self, host: str, name: str, said: str) -> None:
        """Ask the metadata server until a stop is requested or the context is left."""
        url = f"http://{host}/computeMetadata/v1/instance/{name}"
        query = "?alt=text"
        while not (self.requested or self._left.is_set()):
            try:
                request = urllib.request.Request(url + query, headers={"Metadata-Flavor": "Google"})
                with urllib.request.urlopen(request, timeout=WAIT + 10) as answer:
                    notice = answer.read().decode().strip()
            except (OSError, ValueError, http.client.HTTPException):
                # One lost answer must not end the listening: the server restarts now and then.
                self._left.wait(PAUSE)
                continue
            if notice == said:  # never written as False: another listener may have set it
                self.requested = True
            query = f"?alt=text&wait_for_change=true&timeout_sec={WAIT}"

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def metadata_host() -> str | None:
    """Return the address of the metadata server, or None outside Google Cloud."""
    if os.environ.get(HOST):
        return os.environ[HOST]
    try:
        of_google = MACHINE.read_text().startswith("Google")
    except OSError:
        return None
    return "metadata.google.internal" if of_google else None
