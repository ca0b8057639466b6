"""Which part of a model lives on which device."""

from collections.abc import Mapping, Sequence

import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import get_balanced_memory
from transformers import PreTrainedModel

from engine.loading.linears import LinearForms, linear_layers
from engine.loading.plan import DoesNotFit

#: Types whose size accelerate takes for a compressed weight, by bits. For 4 it has none that torch knows:
#: such models are spread as if they were twice as large.
_SIZE_LIKE = {8: torch.int8, 4: torch.int8}


class DeviceMap:
    """A device for each part of a model, by the parts' paths; the path "" stands for all of it."""

    def __init__(self, device_of_part: Mapping[str, torch.device]) -> None:
        self._device_of_part = dict(device_of_part)

    def __call__(self, path: str) -> torch.device:
        """Return the device of the nearest part that contains the module at the path."""
        while path not in self._device_of_part and path:
            path = path.rpartition(".")[0]
        return self._device_of_part.get(path, self._first)

    def connect(self, model: PreTrainedModel) -> None:
        """Make a model whose parts are on several devices hand its tensors from one to the next."""
        if len(set(self._device_of_part.values())) > 1:
            dispatch_model(model, self._device_of_part)

    @property
    def _first(self) -> torch.device:
        return next(iter(self._device_of_part.values()))


def spread_over_gpus(
    skeleton: PreTrainedModel, forms: LinearForms, dtype: torch.dtype, room_bytes: Sequence[int]
) -> DeviceMap:
    """Return a map that puts whole layers on GPUs with so much room each.

    Raises DoesNotFit if some layer finds no place.
    """
    if len(room_bytes) == 1:
        return DeviceMap({"": torch.device("cuda", 0)})
    room = dict(enumerate(room_bytes))
    compressed = {
        f"{place.path}.weight": _SIZE_LIKE[bits]
        for place in linear_layers(skeleton)
        if (bits := forms.bits_of(place)) is not None
    }
    rules = {
        "no_split_module_classes": skeleton._no_split_modules,
        "dtype": dtype,
        "special_dtypes": compressed,
    }
    balanced = get_balanced_memory(skeleton, room, **rules)
    parts = infer_auto_device_map(skeleton, balanced, **rules)
    if strangers := sorted(part for part, device in parts.items() if not isinstance(device, int)):
        raise DoesNotFit(
            f"the GPUs have no room for {len(strangers)} parts, the first of them {strangers[0]}"
        )
    return DeviceMap({part: torch.device("cuda", device) for part, device in parts.items()})
