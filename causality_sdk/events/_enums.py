"""The enumerations of typed events. Their values are the names that the gateway knows."""

from __future__ import annotations

from enum import Enum


class SwipeDirection(str, Enum):
    """Where a finger went."""

    LEFT = "SWIPE_DIRECTION_LEFT"
    RIGHT = "SWIPE_DIRECTION_RIGHT"
    UP = "SWIPE_DIRECTION_UP"
    DOWN = "SWIPE_DIRECTION_DOWN"


class ScrollDirection(str, Enum):
    """Where the content was scrolled to."""

    UP = "SCROLL_DIRECTION_UP"
    DOWN = "SCROLL_DIRECTION_DOWN"


class NetworkType(str, Enum):
    """What a device is connected by."""

    UNSPECIFIED = "NETWORK_TYPE_UNSPECIFIED"
    WIFI = "NETWORK_TYPE_WIFI"
    CELLULAR_2G = "NETWORK_TYPE_CELLULAR_2G"
    CELLULAR_3G = "NETWORK_TYPE_CELLULAR_3G"
    CELLULAR_4G = "NETWORK_TYPE_CELLULAR_4G"
    CELLULAR_5G = "NETWORK_TYPE_CELLULAR_5G"
    ETHERNET = "NETWORK_TYPE_ETHERNET"
    OFFLINE = "NETWORK_TYPE_OFFLINE"


class PermissionStatus(str, Enum):
    """What became of a request for a permission."""

    GRANTED = "PERMISSION_STATUS_GRANTED"
    DENIED = "PERMISSION_STATUS_DENIED"
    DENIED_PERMANENTLY = "PERMISSION_STATUS_DENIED_PERMANENTLY"


class MemoryWarningLevel(str, Enum):
    """How short memory is."""

    LOW = "MEMORY_WARNING_LEVEL_LOW"
    CRITICAL = "MEMORY_WARNING_LEVEL_CRITICAL"


class BatteryState(str, Enum):
    """What a battery does."""

    CHARGING = "BATTERY_STATE_CHARGING"
    DISCHARGING = "BATTERY_STATE_DISCHARGING"
    FULL = "BATTERY_STATE_FULL"
