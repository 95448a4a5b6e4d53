"""Behaviours that are switched on and off from outside while the provider runs, whatever model they are meant for."""

from msgspec import Struct
from msgspec.structs import replace

from holdfast.testing.simulated_provider.behaviour import Behaviour, behaviour

MAX_FAULTS = 1000
ANY = "*"


class Fault(Struct, frozen=True, forbid_unknown_fields=True):
    """model: as requests name it, or "*" for every one without a fault of its own. behaviour: as in the names of models, without their
    `sim-` (`error-503`, `hang`, `stall-3000`); None ends the fault."""

    model: str
    behaviour: str | None


class Faults:
    """What is switched on now. A behaviour that says nothing of its own (`slow-…`, `stall-…`, an error) leaves the model its words."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._behaviours: dict[str, Behaviour] = {}

    @property
    def names(self) -> dict[str, str]:
        """The behaviour of each model that has a fault."""
        return dict(self._names)

    def switch(self, fault: Fault) -> None:
        """Begin or end a fault, from the next request on; raises ValueError for a behaviour that does not exist, and for too many."""
        if fault.behaviour is None:
            self._names.pop(fault.model, None)
            self._behaviours.pop(fault.model, None)
            return
        found = behaviour(f"sim-{fault.behaviour}")
        if found is behaviour("sim-ok") and fault.behaviour != "ok":
            raise ValueError(f"there is no behaviour {fault.behaviour!r}: take the name of a model without its sim-, such as error-503")
        if len(self._names) >= MAX_FAULTS and fault.model not in self._names:
            raise ValueError(f"there are {MAX_FAULTS} faults already; end some of them with null")
        self._names[fault.model] = fault.behaviour
        self._behaviours[fault.model] = found

    def behaviour(self, model: str) -> Behaviour:
        """How `model` behaves now."""
        own = behaviour(model)
        fault = self._behaviours.get(model) or self._behaviours.get(ANY)
        if fault is None:
            return own
        return replace(fault, says=own.says, tokens=own.tokens) if fault.says == "ok" else fault
