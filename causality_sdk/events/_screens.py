"""Typed events about screens and what is done on them.

Their members are those of the gateway's payloads. Neighbour: `_base` validates
them. A test holds them against the schema of the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from causality_sdk.events._base import Coordinates, TypedEvent
from causality_sdk.events._enums import ScrollDirection, SwipeDirection


@dataclass(frozen=True, kw_only=True, slots=True)
class ScreenView(TypedEvent):
    """A screen came up."""

    event_type: ClassVar[str] = "screen_view"
    screen_name: str
    screen_class: str | None = None
    previous_screen: str | None = None
    params: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ScreenExit(TypedEvent):
    """A screen was left, after `duration_ms` milliseconds."""

    event_type: ClassVar[str] = "screen_exit"
    screen_name: str
    duration_ms: int | None = None
    next_screen: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ButtonTap(TypedEvent):
    """A button was pressed."""

    event_type: ClassVar[str] = "button_tap"
    button_id: str
    button_text: str | None = None
    screen_name: str | None = None
    coordinates: Coordinates | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SwipeGesture(TypedEvent):
    """A finger went over the screen."""

    event_type: ClassVar[str] = "swipe_gesture"
    direction: SwipeDirection | None = None
    screen_name: str | None = None
    start: Coordinates | None = None
    end: Coordinates | None = None
    duration_ms: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ScrollEvent(TypedEvent):
    """Content was scrolled, to `scroll_depth_percent` of it."""

    event_type: ClassVar[str] = "scroll_event"
    screen_name: str | None = None
    container_id: str | None = None
    scroll_depth_percent: int | None = None
    direction: ScrollDirection | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TextInput(TypedEvent):
    """Something was typed: how much, never what."""

    event_type: ClassVar[str] = "text_input"
    field_id: str
    field_type: str | None = None
    screen_name: str | None = None
    text_length: int | None = None
    input_duration_ms: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LongPress(TypedEvent):
    """A finger stayed on something."""

    event_type: ClassVar[str] = "long_press"
    element_id: str | None = None
    screen_name: str | None = None
    coordinates: Coordinates | None = None
    duration_ms: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DoubleTap(TypedEvent):
    """Something was tapped twice."""

    event_type: ClassVar[str] = "double_tap"
    element_id: str | None = None
    screen_name: str | None = None
    coordinates: Coordinates | None = None
