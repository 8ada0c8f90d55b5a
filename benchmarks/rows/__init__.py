"""The rows of the table: each module measures some and gives `Result`s."""
