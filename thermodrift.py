"""The front desk."""


def main() -> None:
    """Run the command line."""
