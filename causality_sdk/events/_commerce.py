"""Typed events about products, carts and purchases.

Their members are those of the gateway's payloads. Neighbour: `_base` validates
them. A test holds them against the schema of the wire.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from causality_sdk.events._base import TypedEvent


@dataclass(frozen=True, kw_only=True, slots=True)
class PurchaseItem:
    """One line of a purchase. `price_cents` is that of one piece."""

    product_id: str | None = None
    product_name: str | None = None
    quantity: int | None = None
    price_cents: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductView(TypedEvent):
    """A product was looked at. `price_cents` is in hundredths of the currency."""

    event_type: ClassVar[str] = "product_view"
    product_id: str
    product_name: str | None = None
    category: str | None = None
    price_cents: int | None = None
    currency: str | None = None
    source: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AddToCart(TypedEvent):
    """A product was put into a cart. `price_cents` is that of one piece."""

    event_type: ClassVar[str] = "add_to_cart"
    product_id: str
    product_name: str | None = None
    quantity: int | None = None
    price_cents: int | None = None
    currency: str | None = None
    cart_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoveFromCart(TypedEvent):
    """A product was taken out of a cart."""

    event_type: ClassVar[str] = "remove_from_cart"
    product_id: str
    quantity: int | None = None
    cart_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckoutStart(TypedEvent):
    """A checkout began."""

    event_type: ClassVar[str] = "checkout_start"
    cart_id: str | None = None
    item_count: int | None = None
    total_cents: int | None = None
    currency: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckoutStep(TypedEvent):
    """A step of a checkout was done."""

    event_type: ClassVar[str] = "checkout_step"
    cart_id: str | None = None
    step_number: int | None = None
    step_name: str | None = None
    step_duration_ms: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PurchaseComplete(TypedEvent):
    """A purchase went through. `total_cents` is in hundredths of the currency."""

    event_type: ClassVar[str] = "purchase_complete"
    order_id: str
    cart_id: str | None = None
    item_count: int | None = None
    total_cents: int | None = None
    currency: str | None = None
    payment_method: str | None = None
    items: Sequence[PurchaseItem] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PurchaseFailed(TypedEvent):
    """A purchase did not go through, at step `checkout_step`."""

    event_type: ClassVar[str] = "purchase_failed"
    cart_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    payment_method: str | None = None
    checkout_step: int | None = None
