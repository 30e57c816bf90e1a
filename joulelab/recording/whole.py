"""Files that are there whole or not at all."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from joulelab.errors import UserError


def write_whole(path: Path, text: str) -> None:
    """Put a text file into place; where that fails, what was there stays, and a UserError says why."""
    draft = path.with_name(f".{path.name}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.rename(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
