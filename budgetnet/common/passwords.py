"""Passwords in URLs, which no message and no file may show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"
"""What stands in place of a password."""

# A password with an @ in it ends at the last one.
_USER = re.compile(r"^([^:/]*://[^:/@]*:)(.*)@", flags=re.DOTALL)
_QUERY = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token|credential)[^=&]*=)([^&]*)", flags=re.IGNORECASE)
_LONG = 8
"""Characters of a password that is hidden inside words too; a shorter one would hide parts of other words."""


def without_password(url: str) -> str:
    """Return a URL without its passwords, wherever they are in it."""
    if "://" not in url:
        # Where a password begins is unknown in text that is no URL.
        return hide_passwords(re.sub(r".*@", f"{HIDDEN}@", url, flags=re.DOTALL), url)
    shown = _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(rf"\1{HIDDEN}@", url))
    scheme, slashes, rest = shown.partition("://")
    return f"{scheme}{slashes}{hide_passwords(rest, url)}"


def hide_passwords(text: str, url: str) -> str:
    """Return a text, such as the message of an error, without the passwords in a URL, plain or encoded."""
    for password in sorted(set(_passwords(url)), key=len, reverse=True):
        pattern = re.escape(password)
        if len(password) < _LONG:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        text = re.sub(pattern, HIDDEN, text, flags=re.IGNORECASE)
    return text


def _passwords(url: str) -> Iterator[str]:
    """Yield the passwords in a URL in each way that they may be written."""
    user = _USER.match(url)
    written = [value for _, value in _QUERY.findall(url)]
    if user:
        written += [user[2], user[2].partition("@")[0]]
    for password in filter(None, written):
        for plain in (password, unquote(password), unquote_plus(password)):
            yield from (plain, quote(plain), quote(plain, safe=""), quote_plus(plain))
