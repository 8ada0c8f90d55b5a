"""The destinations' formats, by name. One module each; what they share is in `base`."""

from __future__ import annotations

from causality_sdk.wire.base import Wire
from causality_sdk.wire.causality import CausalityWire
from causality_sdk.wire.causality_proto import CausalityProtoWire
from causality_sdk.wire.packtrack import PackTrackWire

WIRES: dict[str, type[Wire]] = {
    CausalityWire.name: CausalityWire,
    CausalityProtoWire.name: CausalityProtoWire,
    PackTrackWire.name: PackTrackWire,
}
"""What `Config.wire` may name. Each can be made without arguments; `opening` gives those that a
client knows better.
"""
