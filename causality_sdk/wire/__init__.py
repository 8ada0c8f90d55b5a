"""The destinations' formats, by name. One module each; what they share is in `base`."""

from __future__ import annotations

from causality_sdk.wire.base import Wire
from causality_sdk.wire.causality import CausalityWire
from causality_sdk.wire.packtrack import PackTrackWire

WIRES: dict[str, type[Wire]] = {
    CausalityWire.name: CausalityWire,
    PackTrackWire.name: PackTrackWire,
}
"""What `Config.wire` may name."""
