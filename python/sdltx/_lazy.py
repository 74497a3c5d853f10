"""Names of modules that take long to import, for annotations: who asks for the types gets them."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Lazy:
    """A module, or a name of one, that is imported when it is looked at."""

    def __init__(self, module: str, name: str = "") -> None:
        self._of = module, name

    def _it(self) -> Any:
        module, name = self._of
        found = import_module(module)
        return getattr(found, name) if name else found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._it(), name)

    def __getitem__(self, key: Any) -> Any:
        return self._it()[key]

    def __or__(self, other: Any) -> Any:
        return self._it() | other

    def __ror__(self, other: Any) -> Any:
        return other | self._it()

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._it()(*arguments, **keywords)


np = Lazy("numpy")
NDArray = Lazy("numpy.typing", "NDArray")
ArrayLike = Lazy("numpy.typing", "ArrayLike")
Fraction = Lazy("fractions", "Fraction")
Image = Lazy("PIL.Image", "Image")
Pipeline = Lazy("sdltx.pipeline", "Pipeline")
