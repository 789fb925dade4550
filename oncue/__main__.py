"""`python -m oncue` is `oncue`."""

from __future__ import annotations

from oncue.cli import main

main()
