"""Monitoring and shutdown of long runs: notices, heartbeat, share of peak, summary page."""

import functools
import http.server
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s3_jax.analysis import peak
from s3_jax.analysis.peak import ShareOfPeak, peak_flops
from s3_jax.benchmarks.protocols import PROTOCOLS
from s3_jax.benchmarks.validation import ValidationRules, validate
from s3_jax.data.folders import evaluation_videos
from s3_jax.errors import InputError
from s3_jax.training.fit import FitConfig, fit
from s3_jax.training.progress import Evaluation, read_metrics
from s3_jax.training.stopping import StopRequest, metadata_host
from s3_jax.training.summary_page import chart_of
from tests.benchmarks.benchmark_files import make_davis
from tests.support.tiny_models import tiny_variables
from tests.tools.fake_session import FakeSession
from tests.training.tiny_run import MODEL


class Metadata(http.server.BaseHTTPRequestHandler):
    """A metadata server that announces preemption.

    Its first answer about maintenance fails. The next one begins before the notice, which waits
    for it, and ends after the notice: when the test has seen it.
    """

    asked: ClassVar[list[str]] = []
    begun: ClassVar[threading.Event] = threading.Event()
    seen: ClassVar[threading.Event] = threading.Event()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        assert self.headers["Metadata-Flavor"] == "Google"
        if "preempted" in self.path:
            waits = "wait_for_change" in self.path
            self.say(200, "TRUE" if waits and self.begun.wait(60) else "NONE")
        elif sum("maintenance" in path for path in self.asked) == 1:
            self.say(503, "")
        else:
            self.say(200, "NONE", late=True)

    def say(self, status: int, text: str, late: bool = False) -> None:
        self.send_response(status)
        self.end_headers()
        if late:
            self.wfile.flush()
            self.begun.set()
            self.seen.wait(60)
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    Metadata.asked.clear()
    Metadata.begun.clear()
    Metadata.seen.clear()
    server = http.server.ThreadingHTTPServer(("localhost", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("GCE_METADATA_HOST", f"localhost:{server.server_port}")
    monkeypatch.setattr("s3_jax.training.stopping.PAUSE", 0.01)
    yield
    Metadata.seen.set()
    server.shutdown()
    server.server_close()


def wait_until(holds: Callable[[], bool]) -> bool:
    """Return whether the condition holds within a minute."""
    deadline = time.monotonic() + 60
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def listeners() -> int:
    return sum("_listen" in thread.name for thread in threading.enumerate())


def test_a_notice_of_preemption_asks_to_stop(metadata: None) -> None:
    with StopRequest() as stop:
        assert not stop.requested
        assert wait_until(lambda: stop.requested)
        Metadata.seen.set()  # an answer without a notice that ends now takes nothing back
        assert wait_until(lambda: listeners() == 0)
        assert stop.requested
    assert any(path.endswith("instance/preempted?alt=text") for path in Metadata.asked)


def test_listening_ends_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", "localhost:1")  # where nobody answers
    with StopRequest() as stop:
        assert listeners() == 2
    assert wait_until(lambda: listeners() == 0)
    assert not stop.requested


def test_elsewhere_nobody_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    monkeypatch.setattr("s3_jax.training.stopping.MACHINE", tmp_path / "none")
    assert metadata_host() is None
    (tmp_path / "none").write_text("Google Compute Engine\n")
    assert metadata_host() == "metadata.google.internal"


TRACED: list[str] = []  # an entry for every time that Python runs the loss


def product_loss(variables: Any, batch: Any, rows: Any, key: Any) -> Any:
    TRACED.append("product_loss")
    weight = jax.tree.leaves(variables["params"])[0].ravel()[:1]
    product = batch["x"] @ batch["y"][0]  # 2 x 8 x 4 multiplications
    return {"total": jnp.mean(product) * weight[0]}, variables["batch_stats"]


@functools.cache
def train(workdir: Path) -> None:
    def data(step: int) -> Iterator[Any]:
        while True:
            yield {"x": np.ones((2, 8), np.float32), "y": np.ones((2, 8, 4), np.float32)}

    fit(
        workdir, MODEL, tiny_variables(MODEL), loss=product_loss, optimizer=optax.sgd(0.1),
        data=data, steps=3, evaluate=lambda _: Evaluation(0.25), callbacks=[ShareOfPeak()],
        config=FitConfig(log_every=1, save_every=2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps, on devices whose peak is known."""
    workdir = tmp_path_factory.mktemp("run")
    TRACED.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peak, "PEAKS", {"cpu": 1e9})
        train(workdir)
    return workdir


def test_metrics_tell_the_share_of_the_peak(workdir: Path) -> None:
    metrics = read_metrics(workdir / "metrics.jsonl")
    last = [entry for entry in metrics if "losses" in entry][-1]
    flops = last["teraflops_per_second"] * 1e12 * last["seconds"]
    assert round(flops) >= 2 * 2 * 8 * 4  # of a rate times seconds, which rounds
    assert last["share_of_peak"] == pytest.approx(flops / last["seconds"] / 1e9)
    for name in ("steps_per_second", "frames_per_second", "data_wait", "host_memory"):
        assert last[name] >= 0


def test_a_step_is_traced_once(workdir: Path) -> None:
    """Tracing a large network takes half a minute; counting its arithmetic costs no second one."""
    assert len(TRACED) == 1


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("cpu", None),
    ],
)
def test_peaks_by_what_jax_calls_devices(kind: str, peak: float | None) -> None:
    assert peak_flops(kind) == peak


def test_the_heart_beats(workdir: Path) -> None:
    beat = json.loads((workdir / "heartbeat.json").read_text())
    assert beat["steps"] == beat["step"] == 3
    assert beat["process"] == os.getpid() and beat["stage"] == "training"


def test_the_page_tells_how_the_run_went(workdir: Path) -> None:
    page = (workdir / "summary.html").read_text()
    for part in ("Step 3 of 3", "finished", "<polyline", "steps/s", "validation", "score 0.25"):
        assert part in page
    assert "http" not in page.replace("http-equiv", "")  # it loads nothing


def test_curves_leave_out_what_is_not_finite() -> None:
    chart = chart_of("loss", [(1, 2.0), (2, float("nan")), (3, 1.0)])
    assert chart is not None
    assert (chart.points, chart.lowest, chart.highest) == ("10.0,10.0 710.0,190.0", "1", "2")
    assert chart_of("loss", [(1, 2.0)]) is None


def test_processes_validate_a_share_each(tmp_path: Path) -> None:
    make_davis(tmp_path, {"a": 3, "b": 3, "c": 4})
    videos, rules = evaluation_videos(tmp_path), ValidationRules(PROTOCOLS["davis2017"])
    alone = validate(FakeSession, videos, rules)
    parts: dict[int, Any] = {}
    done: list[int] = []

    def first(part: Any) -> list[Any]:
        parts[1] = part
        return [[], part, []]

    with pytest.raises(KeyError):  # what the others have is missing
        validate(FakeSession, videos, rules, lambda: done.append(1), (1, 2), first)
    assert len(done) == 1
    both = validate(FakeSession, videos, rules, share=(0, 2), gather=lambda p: [p, parts[1]])
    assert both == alone
    with pytest.raises(InputError, match="c is broken"):
        validate(FakeSession, videos, rules, share=(0, 2), gather=lambda p: [p, "c is broken"])
