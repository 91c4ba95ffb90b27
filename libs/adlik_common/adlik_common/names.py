"""Names of models, and how they are written in subjects and keys."""

from __future__ import annotations

import re

from adlik_common.errors import InvalidName

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_model_name(name: str) -> str:
    """Returns the name; raises `InvalidName` where it breaks the rule."""
    if not _MODEL_NAME.fullmatch(name):
        shown = name if len(name) <= 40 else f"{name[:40]}…"
        raise InvalidName(
            f"'{shown}' is no model name.",
            cure="Use 1 to 128 letters, digits, '-', '_' and '.', starting with a letter or digit.",
        )
    return name


def token(name: str) -> str:
    """Returns a checked name as one token of a subject or key, where '.' separates tokens."""
    return check_model_name(name).replace(".", "=2E")


def untoken(text: str) -> str:
    """Returns the name that `token` was given."""
    return text.replace("=2E", ".")


def version_key(name: str, version: int) -> str:
    """Returns the key of a version's record in the catalog."""
    return f"{token(name)}.{version}"
