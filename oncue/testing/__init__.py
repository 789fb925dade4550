"""What tests of programs and of engines are made with.

`oncue.testing.conformance` is the suite that every engine passes; it needs pytest and is imported by name.
`Twice` wraps an engine and repeats every write, as a client does whose reply was lost.
"""

from __future__ import annotations

from oncue.testing.twice import Twice

__all__ = ["Twice"]
