"""Typed events about the program and the device it runs on.

Their members are those of the gateway's payloads. Neighbour: `_base` validates
them. A test holds them against the schema of the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from causality_sdk.events._base import TypedEvent
from causality_sdk.events._enums import (
    BatteryState,
    MemoryWarningLevel,
    NetworkType,
    PermissionStatus,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AppStart(TypedEvent):
    """The program was started."""

    event_type: ClassVar[str] = "app_start"
    is_cold_start: bool | None = None
    launch_duration_ms: int | None = None
    launch_source: str | None = None
    deeplink_url: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AppBackground(TypedEvent):
    """The program went to the background."""

    event_type: ClassVar[str] = "app_background"
    foreground_duration_ms: int | None = None
    current_screen: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AppForeground(TypedEvent):
    """The program came to the foreground."""

    event_type: ClassVar[str] = "app_foreground"
    background_duration_ms: int | None = None
    resume_screen: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AppCrash(TypedEvent):
    """The program crashed."""

    event_type: ClassVar[str] = "app_crash"
    crash_type: str | None = None
    crash_message: str | None = None
    stack_trace: str | None = None
    current_screen: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkChange(TypedEvent):
    """The device is connected in another way than before."""

    event_type: ClassVar[str] = "network_change"
    previous_type: NetworkType | None = None
    current_type: NetworkType | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PermissionRequest(TypedEvent):
    """The user was asked for a permission."""

    event_type: ClassVar[str] = "permission_request"
    permission_type: str | None = None
    trigger_screen: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PermissionResult(TypedEvent):
    """The user answered a request for a permission."""

    event_type: ClassVar[str] = "permission_result"
    permission_type: str | None = None
    status: PermissionStatus | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryWarning(TypedEvent):
    """The system said that memory is short."""

    event_type: ClassVar[str] = "memory_warning"
    available_memory_bytes: int | None = None
    used_memory_bytes: int | None = None
    level: MemoryWarningLevel | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BatteryChange(TypedEvent):
    """The battery's level, in percent, or its state changed."""

    event_type: ClassVar[str] = "battery_change"
    battery_level: int | None = None
    state: BatteryState | None = None
