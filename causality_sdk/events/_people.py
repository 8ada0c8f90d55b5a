"""Typed events about accounts.

Their members are those of the gateway's payloads. Neighbour: `_base` validates
them. A test holds them against the schema of the wire.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from causality_sdk.events._base import TypedEvent


@dataclass(frozen=True, kw_only=True, slots=True)
class UserLogin(TypedEvent):
    """Somebody logged in. `method` says how: `password`, `google`."""

    event_type: ClassVar[str] = "user_login"
    user_id: str | None = None
    method: str | None = None
    is_new_user: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UserLogout(TypedEvent):
    """Somebody logged out."""

    event_type: ClassVar[str] = "user_logout"
    user_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UserSignup(TypedEvent):
    """Somebody made an account."""

    event_type: ClassVar[str] = "user_signup"
    user_id: str | None = None
    method: str | None = None
    referral_source: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UserProfileUpdate(TypedEvent):
    """Somebody changed their profile. `fields_updated` names what."""

    event_type: ClassVar[str] = "user_profile_update"
    user_id: str | None = None
    fields_updated: Sequence[str] | None = None
