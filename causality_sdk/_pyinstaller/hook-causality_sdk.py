"""For every program: what the package loads by name."""

import causality_sdk

hiddenimports = [
    "causality_sdk._migrations.queue",
    "causality_sdk.errors",
    *(f"causality_sdk.{module}" for module in causality_sdk._PLACES),
]
