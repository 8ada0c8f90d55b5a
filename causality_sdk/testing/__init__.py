"""What your own tests need: a server on loopback, a transport that never leaves the process, and
the suites that a wire or a transport of your own must pass.

Names only. Nothing of the package imports this one; importing it loads neither requests nor
sqlite-utils.
"""

from causality_sdk.testing._batch import ReceivedRequest
from causality_sdk.testing._rules import ConformanceError
from causality_sdk.testing._script import ScriptedAnswer
from causality_sdk.testing._transport_rules import check_transport
from causality_sdk.testing._wire_rules import check_wire
from causality_sdk.testing.collector import LoopbackCollector
from causality_sdk.testing.packtrack import LoopbackPackTrack
from causality_sdk.testing.transport import RecordingTransport

__all__ = [
    "ConformanceError",
    "LoopbackCollector",
    "LoopbackPackTrack",
    "ReceivedRequest",
    "RecordingTransport",
    "ScriptedAnswer",
    "check_transport",
    "check_wire",
]
