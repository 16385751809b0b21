"""`budgetnet dashboard` as a real process: output, address and shutdown."""

from __future__ import annotations

import errno
import json
import re
import shlex
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import optuna
import pytest
from dashboard_support import EIGHT, NAME, Copy, all_outcomes, copied, opened
from report_support import every_outcome
from support import RunCommand, started, wait_for, write_space

from budgetnet.study.storage import default_storage, open_storage
from budgetnet.visualization.dashboard import DashboardServer

__all__ = ["all_outcomes"]

ADDRESS = re.compile(r"(?P<base>http://127\.0\.0\.1:(?P<port>\d+))/dashboard/studies/(?P<study>\d+)$")


@pytest.fixture
def copy(all_outcomes: Path, tmp_path: Path) -> Copy:
    return copied(all_outcomes, tmp_path / "runs")


@contextmanager
def serving(out: Path, *arguments: str) -> Iterator[tuple[Any, re.Match[str]]]:
    """A process that serves, and the address that it told."""
    with started("dashboard", *arguments, "--port", "0", "--out", str(out), cwd=out) as process:
        line = process.stdout.readline()
        found = ADDRESS.search(line.strip())
        assert found, line
        yield process, found


def ask(base: str, path: str) -> Any:
    with urlopen(base + path, timeout=30) as answer:
        return json.load(answer)


QUICK = [
    "--trials",
    "1",
    "--epochs",
    "1",
    "--max-params",
    "20k",
    "--sizing",
    "scale",
    "--train-size",
    "64",
    "--validation-size",
    "40",
]
"""Options of a search for a single candidate."""


def test_an_interrupt_ends_it_also_where_a_script_put_it_in_the_background(copy: Copy) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with serving(copy.out, NAME) as (process, _):
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_dashboard_with_one_line(copy: Copy, end: signal.Signals) -> None:
    with serving(copy.out, NAME) as (process, address):
        assert ask(address["base"], f"/api/studies/{address['study']}")["name"] == NAME
        for path in ("param_importances", "plot/contour", "plot/edf", "no/such/page"):
            with suppress(OSError):
                urlopen(f"{address['base']}/api/studies/{address['study']}/{path}", timeout=60).read()
        process.send_signal(end)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert (out, err) == ("", "press Ctrl-C to stop\ndashboard stopped\n"), "and no line for each request"
    with pytest.raises(OSError, match="refused"):
        urlopen(address["base"], timeout=5)


def test_errors_of_requests_are_printed_until_the_server_closes(copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    server = DashboardServer(open_storage(default_storage(copy.out), create=False), out=copy.out, port=0)

    def fail() -> str:
        try:
            raise OSError(errno.EBADF, "no such descriptor")
        except OSError:
            server.handle_error(None, ("127.0.0.1", 1))
        return capsys.readouterr().err

    assert "no such descriptor" in fail()
    server.server_close()
    assert fail() == ""


def test_the_metric_has_a_name_and_attributes_are_readable(tmp_path: Path) -> None:
    written = every_outcome(tmp_path)
    storage = open_storage(default_storage(tmp_path), create=False)
    optuna.create_study(storage=storage, study_name="of others").set_user_attr("budgetnet:settings", "{}")
    with serving(tmp_path, "study") as (_, address):
        study = ask(address["base"], f"/api/studies/{address['study']}")
        others = ask(address["base"], f"/api/studies/{int(address['study']) + 1}")
    assert study["objective_names"] == ["validation accuracy"]
    shown = {each["key"]: each["value"] for each in study["user_attrs"]}
    words = shlex.split(shown["budgetnet:settings"])
    assert words[:2] == ["budgetnet", "search"]
    assert words[words.index("--max-params") + 1] == "100k"
    assert shown["budgetnet:finals"] == "#1, #2; seeds 0, 1"
    assert [each["value"] for each in others["user_attrs"]] == ["{}"]
    stored = written.study.user_attrs
    assert json.loads(stored["budgetnet:settings"])["config"]["max_params"] == 100_000
    assert stored["budgetnet:finals"]["seeds"] == [0, 1]


def listening(port: int) -> set[str]:
    """Addresses on which any process of this machine listens at a port, by the kernel's own table."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, number = local.partition(":")
            if state == "0A" and int(number, 16) == port:
                found.add(address)
    return found


def test_server_listens_only_on_localhost(copy: Copy) -> None:
    with serving(copy.out, NAME) as (_, address):
        # 127.0.0.1, least byte first.
        assert listening(int(address["port"])) == {"0100007F"}


@pytest.mark.parametrize(
    ("headers", "method", "refused"),
    [
        ({}, "GET", False),
        ({"Host": "localhost:{port}"}, "GET", False),
        ({"Origin": "http://127.0.0.1:{port}"}, "DELETE", False),
        ({"Host": "evil.example"}, "GET", True),
        ({"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"}, "DELETE", True),
        ({"Host": "127.0.0.1.evil.example:{port}"}, "GET", True),
        ({"Host": ""}, "GET", True),
        ({"Host": "["}, "GET", True),
        ({"Origin": "http://evil.example"}, "DELETE", True),
        ({"Origin": "null"}, "DELETE", True),
        ({"Origin": "http://localhost:1"}, "DELETE", True),
    ],
)
def test_only_its_own_pages_may_use_it(copy: Copy, headers: dict[str, str], method: str, refused: bool) -> None:
    # No study has this number, so that a deletion that is let through deletes nothing.
    path = "/api/studies/999999" if method == "DELETE" else "/api/studies"
    with serving(copy.out, NAME) as (_, address):
        connection = HTTPConnection("127.0.0.1", int(address["port"]), timeout=60)
        named = {name: value.format(port=address["port"]) for name, value in headers.items()}
        connection.request(method, path, headers=named)
        assert (connection.getresponse().status == 403) is refused


def test_over_budget_and_pruned_candidates_are_never_the_best(copy: Copy) -> None:
    with serving(copy.out, NAME) as (_, address):
        shown = ask(address["base"], f"/api/studies/{address['study']}")
    attributes = [{each["key"]: each["value"] for each in trial["user_attrs"]} for trial in shown["trials"]]
    over = [int(found["params"]) > 20_000 for found in attributes]
    assert 0 < sum(over) < len(over)
    for trial, is_over, found in zip(shown["trials"], over, attributes, strict=True):
        if is_over or found.get("status") == "stopped":
            # A pruned trial keeps its last report, as Optuna's own does.
            assert (trial["state"], "values" in trial) == ("Pruned", not is_over)
    (best,) = shown["best_trials"]
    assert not over[best["number"]]
    within = [
        trial["values"][0]
        for trial, is_over in zip(shown["trials"], over, strict=True)
        if trial["state"] == "Complete" and not is_over
    ]
    assert best["values"] == [max(within)]


@pytest.mark.slow
def test_it_keeps_up_with_a_search(tmp_path: Path) -> None:
    space = write_space(tmp_path / "space.yaml", {**EIGHT, "channels": [8, 512]})
    search = ["search", "--space", space, "--max-params", "3M", "--sizing", "reject", "--trials", "60", "--epochs", "1"]
    sizes = ["--train-size", "64", "--validation-size", "40", "--study", "live"]
    with started(*search, *sizes, "--pruner", "none", cwd=tmp_path) as searching:
        runs = tmp_path / "runs"
        wait_for(lambda: list(runs.glob("*/result.json")), process=searching)
        with serving(runs, "live") as (process, address):

            def noted() -> int:
                trials = ask(address["base"], f"/api/studies/{address['study']}")["trials"]
                return sum(bool(trial["note"]["body"]) for trial in trials if trial["state"] != "Running")

            first = wait_for(noted, process=process)
            wait_for(lambda: noted() > first, process=process)
            assert searching.poll() is None, "the search goes on"
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "press Ctrl-C to stop\ndashboard stopped\n")
        searching.send_signal(signal.SIGINT)
        _, err = searching.communicate(timeout=60)
    assert searching.returncode == 130
    assert "progress is saved" in err


def test_a_port_that_is_taken_is_one_line(copy: Copy, tell: RunCommand) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = tell("dashboard", NAME, "--port", str(port), "--out", str(copy.out))
    assert told.code == 2
    assert told.err == f"error: --port = {port}: is in use; choose another, or 0 for any free port\n"
    assert not (copy.out / "artifacts").exists(), "nothing was done for it"


@pytest.mark.parametrize("port", ["-1", "65536", "http", "8080.5", "", "1" * 5000, "٣"])
def test_invalid_port_gives_one_line(copy: Copy, tell: RunCommand, port: str) -> None:
    told = tell("dashboard", NAME, f"--port={port}", "--out", str(copy.out))
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert "must be a whole number from 0 to 65535" in told.err


def test_a_study_that_is_missing_is_one_line(copy: Copy, tell: RunCommand, tmp_path: Path) -> None:
    told = tell("dashboard", "other", "--out", str(copy.out))
    assert (told.code, told.out) == (2, "")
    assert "no such study; the storage has" in told.err
    told = tell("dashboard", "--out", str(tmp_path / "nowhere"))
    assert (told.code, told.out) == (2, "")
    assert "the storage has no study yet" in told.err
    assert not (tmp_path / "nowhere").exists()


def test_a_search_leaves_notes_for_whoever_looks_later(tmp_path: Path, tell: RunCommand) -> None:
    out = tmp_path / "runs"
    told = tell("search", *QUICK, "--study", NAME, "--out", str(out))
    assert told.code == 0
    copy = opened(out)
    assert copy.note(copy.trial("complete")).startswith("### #0 ")
    assert "learning-curves.svg" in copy.files(copy.trial("complete"))


def test_unwritable_notes_do_not_prevent_leaderboard(tmp_path: Path, tell: RunCommand) -> None:
    out = tmp_path / "runs"
    out.mkdir()
    (out / "artifacts").write_text("in the way")
    told = tell("search", *QUICK, "--study", NAME, "--out", str(out))
    assert told.code == 0
    assert "best run: " in told.out
    assert re.fullmatch(r"notes for the dashboard were not updated: .*/artifacts: File exists\n", told.err)
