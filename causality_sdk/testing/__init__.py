"""What your own tests need: a server on loopback, and a transport that never leaves the process.

Names only. Nothing of the package imports this one; importing it loads neither requests nor
sqlite-utils.
"""

from causality_sdk.testing._batch import ReceivedRequest
from causality_sdk.testing._script import ScriptedAnswer
from causality_sdk.testing.collector import LoopbackCollector
from causality_sdk.testing.packtrack import LoopbackPackTrack
from causality_sdk.testing.transport import RecordingTransport

__all__ = [
    "LoopbackCollector",
    "LoopbackPackTrack",
    "ReceivedRequest",
    "RecordingTransport",
    "ScriptedAnswer",
]
