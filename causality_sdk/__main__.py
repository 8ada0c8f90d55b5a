"""`python -m causality_sdk` is `causality`, for where the scripts are not on the path."""

from causality_sdk.cli import main

if __name__ == "__main__":
    main(prog_name="causality")  # else completion would look for another variable
