"""``python -m sdltx`` is ``sdltx-cli``."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
