"""`python -m causality_sdk.packtrack_logger` is `packtrack-logger`."""

from causality_sdk.packtrack_logger import main

if __name__ == "__main__":
    main()
