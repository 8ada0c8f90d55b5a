"""The destinations' formats, by name. One module each; what they share is in `base`."""

from __future__ import annotations

from causality_sdk.wire.base import Wire
from causality_sdk.wire.causality import CausalityWire

WIRES: dict[str, type[Wire]] = {CausalityWire.name: CausalityWire}
"""What `Config.wire` may name."""
