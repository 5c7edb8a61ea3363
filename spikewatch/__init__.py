"""See dead neurons, vanished surrogate gradients and collapsed ternary layers while they happen.

    watch = spikewatch.attach(model)

The names are loaded when they are first used, so that `import spikewatch` and the commands that
need no torch stay light.
"""

from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .alerts.rule import Rule as Rule
    from .attaching import attach as attach, tap as tap, watch_of as watch_of
    from .errors import (
        AlertRaised as AlertRaised,
        AttachError as AttachError,
        MissingExtraError as MissingExtraError,
        RuleError as RuleError,
        SpikewatchError as SpikewatchError,
        StoreError as StoreError,
    )
    from .store import Store as Store, open_store as open_store
    from .watch import Watch as Watch

_HOMES = {
    "AlertRaised": "errors",
    "AttachError": "errors",
    "MissingExtraError": "errors",
    "Rule": "alerts.rule",
    "RuleError": "errors",
    "SpikewatchError": "errors",
    "Store": "store",
    "StoreError": "errors",
    "Watch": "watch",
    "attach": "attaching",
    "open_store": "store",
    "tap": "attaching",
    "watch_of": "attaching",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        from importlib.metadata import version

        return version("spikewatch")
    if name not in _HOMES:
        raise AttributeError(f"module 'spikewatch' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
