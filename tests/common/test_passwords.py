"""Passwords in URLs and in messages of errors."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from budgetnet.common.errors import BudgetnetError
from budgetnet.common.passwords import hide_passwords, without_password
from budgetnet.study.storage import open_storage
from budgetnet.training.trackers import make_tracker

PASSWORD = "s3cr3t/w@rd x"
ENCODED = quote(PASSWORD, safe="")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "postgresql+psycopg://bn:PASSWORD@host/db?sslmode=PASSWORD",
            "postgresql+psycopg://bn:***@host/db?sslmode=***",
        ),
        (
            "postgresql://bn@host/db?connect_timeout=1&password=one",
            "postgresql://bn@host/db?connect_timeout=1&password=***",
        ),
        ("postgresql://bn@host/db?sslpassword=one&sslmode=two", "postgresql://bn@host/db?sslpassword=***&sslmode=two"),
        ("postgresql://postgres:postgres@host/postgres", "postgresql://***:***@host/***"),
        (f"postgresql://bn:{ENCODED}@host/db?sslmode={ENCODED.lower()}", "postgresql://bn:***@host/db?sslmode=***"),
        (f"postgresql://bn:{PASSWORD}@host/db", "postgresql://bn:***@host/db"),
        ("bn:secret@host", "***@host"),
        ("https://bn:secret@host/mlflow", "https://bn:***@host/mlflow"),
        ("sqlite:////tmp/a:b@c.db", "sqlite:////tmp/a:b@c.db"),
        ("nonsense", "nonsense"),
    ],
)
def test_passwords_in_urls_are_hidden(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize("written", [PASSWORD, ENCODED, ENCODED.lower(), quote_plus(PASSWORD), quote(PASSWORD)])
@pytest.mark.parametrize("url", [f"postgresql://bn:{ENCODED}@host/db", f"postgresql://host/db?password={ENCODED}"])
def test_passwords_in_messages_are_hidden_in_every_spelling(url: str, written: str) -> None:
    assert hide_passwords(f'invalid sslmode value: "{written}"!', url) == 'invalid sslmode value: "***"!'


def test_a_short_password_hides_whole_words_only() -> None:
    assert hide_passwords("no db for bn: bnx", "postgresql://u:bn@host/db") == "no db for ***: bnx"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://bn:PASSWORD@127.0.0.1:1/studies?sslmode=PASSWORD",
        "postgresql+psycopg://bn:PASSWORD@127.0.0.1:1/studies?connect_timeout=PASSWORD",
        "postgresql+psycopg://bn@127.0.0.1:1/studies?password=PASSWORD&sslmode=PASSWORD",
        "sqlite://?password=PASSWORD",
    ],
)
def test_no_error_of_a_storage_shows_a_password(url: str) -> None:
    with pytest.raises(BudgetnetError) as caught:
        open_storage(url, create=False)
    assert "PASSWORD" not in str(caught.value)


def test_no_error_of_a_tracker_shows_a_password(tmp_path: Path) -> None:
    with pytest.raises(BudgetnetError) as caught:
        make_tracker("mlflow:foo://bn:PASSWORD@host/PASSWORD", out=tmp_path, field="--track")
    assert "PASSWORD" not in str(caught.value)
