"""The command line: one verb for each thing a person does. Heavy imports stand where a verb needs them."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

from joulelab.cli import bench, data, models
from joulelab.cli.app import EXIT_BUG, EXIT_USAGE, app
from joulelab.errors import JoulelabError

__all__ = ["bench", "data", "models"]
USAGE_OF_TYPER = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends with one of the documented exit codes."""
    try:
        app(arguments)
    except SystemExit as end:
        sys.exit(EXIT_USAGE if end.code == USAGE_OF_TYPER else end.code)
    except JoulelabError as error:
        print(f"joulelab: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"joulelab: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except Exception:  # noqa: BLE001 the last line of defence: a bug keeps its traceback
        traceback.print_exc()
        sys.exit(EXIT_BUG)
