"""Typed events: classes with the members of each event type, for completion in an editor.

They go through every wire; the Causality gateway keeps each as the payload of its type. Names only.
"""

from causality_sdk.events._base import Coordinates, TypedEvent
from causality_sdk.events._commerce import (
    AddToCart,
    CheckoutStart,
    CheckoutStep,
    ProductView,
    PurchaseComplete,
    PurchaseFailed,
    PurchaseItem,
    RemoveFromCart,
)
from causality_sdk.events._device import (
    AppBackground,
    AppCrash,
    AppForeground,
    AppStart,
    BatteryChange,
    MemoryWarning,
    NetworkChange,
    PermissionRequest,
    PermissionResult,
)
from causality_sdk.events._enums import (
    BatteryState,
    MemoryWarningLevel,
    NetworkType,
    PermissionStatus,
    ScrollDirection,
    SwipeDirection,
)
from causality_sdk.events._people import UserLogin, UserLogout, UserProfileUpdate, UserSignup
from causality_sdk.events._screens import (
    ButtonTap,
    DoubleTap,
    LongPress,
    ScreenExit,
    ScreenView,
    ScrollEvent,
    SwipeGesture,
    TextInput,
)

__all__ = [
    "AddToCart",
    "AppBackground",
    "AppCrash",
    "AppForeground",
    "AppStart",
    "BatteryChange",
    "BatteryState",
    "ButtonTap",
    "CheckoutStart",
    "CheckoutStep",
    "Coordinates",
    "DoubleTap",
    "LongPress",
    "MemoryWarning",
    "MemoryWarningLevel",
    "NetworkChange",
    "NetworkType",
    "PermissionRequest",
    "PermissionResult",
    "PermissionStatus",
    "ProductView",
    "PurchaseComplete",
    "PurchaseFailed",
    "PurchaseItem",
    "RemoveFromCart",
    "ScreenExit",
    "ScreenView",
    "ScrollDirection",
    "ScrollEvent",
    "SwipeDirection",
    "SwipeGesture",
    "TextInput",
    "TypedEvent",
    "UserLogin",
    "UserLogout",
    "UserProfileUpdate",
    "UserSignup",
]
