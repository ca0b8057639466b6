"""sail's `EngineLLM` on the simulator."""

import ctypes
import weakref
from ctypes import byref

from sophon.simulator import LaunchTensor, Shape, simulator
from sophon.tensor import Dtype, Handle, Tensor


class SailEngineError(Exception):
    """A bmodel cannot be loaded."""


class EngineLLM:
    """A bmodel on devices; its tensors are keyed by their index."""

    def __init__(self, bmodel_path, tpu_ids):
        for tpu_id in tpu_ids:
            Handle(tpu_id)
        c = simulator()
        self._runtime = c.bmrt_create(c.handle)
        weakref.finalize(self, c.bmrt_destroy, self._runtime)
        if not c.bmrt_load_bmodel(self._runtime, str(bmodel_path).encode()):
            raise SailEngineError("EngineLLM related error!")
        names = ctypes.POINTER(ctypes.c_char_p)()
        c.bmrt_get_network_names(self._runtime, byref(names))
        found = [names[place].decode() for place in range(c.bmrt_get_network_number(self._runtime))]
        self._nets = {name: c.bmrt_get_network_info(self._runtime, name.encode()).contents for name in found}
        self._devices = list(tpu_ids)

    def get_device_ids(self):
        return list(self._devices)

    def get_graph_names(self):
        return list(self._nets)

    def get_addr_mode(self, graph_name):
        return self._nets[graph_name].addr_mode

    def get_is_dynamic(self, graph_name):
        return self._nets[graph_name].is_dynamic

    def get_stage_num(self, graph_name):
        return self._nets[graph_name].stage_count

    def get_input_num(self, graph_name):
        return self._nets[graph_name].input_count

    def get_output_num(self, graph_name):
        return self._nets[graph_name].output_count

    def get_input_name(self, graph_name, index):
        return self.get_input_names(graph_name)[index]

    def get_output_name(self, graph_name, index):
        return self.get_output_names(graph_name)[index]

    def get_input_names(self, graph_name):
        net = self._nets[graph_name]
        return [net.input_names[place].decode() for place in range(net.input_count)]

    def get_output_names(self, graph_name):
        net = self._nets[graph_name]
        return [net.output_names[place].decode() for place in range(net.output_count)]

    def get_input_shape(self, graph_name, index, stage=0):
        return self._shapes(graph_name, stage, "input")[index]

    def get_output_shape(self, graph_name, index, stage=0):
        return self._shapes(graph_name, stage, "output")[index]

    def get_input_max_shape(self, graph_name, index):
        return self.get_input_shape(graph_name, index)

    def get_output_max_shape(self, graph_name, index):
        return self.get_output_shape(graph_name, index)

    def get_input_dtype(self, graph_name, index):
        return self._dtypes(graph_name, "input")[index]

    def get_output_dtype(self, graph_name, index):
        return self._dtypes(graph_name, "output")[index]

    def get_input_tensor_devid(self, graph_name, index):
        return self._devices[self._nets[graph_name].input_devices[index]]

    def get_output_tensor_devid(self, graph_name, index):
        return self._devices[self._nets[graph_name].output_devices[index]]

    def get_input_tensors(self, graph_name, stage=0):
        """The net's own memory; nothing unless it has addr_mode 1."""
        return self._internal(graph_name, stage, "input") if self.get_addr_mode(graph_name) == 1 else {}

    def get_output_tensors(self, graph_name, stage=0):
        """The net's own memory; nothing unless it has addr_mode 1."""
        return self._internal(graph_name, stage, "output") if self.get_addr_mode(graph_name) == 1 else {}

    def get_input_tensors_addrmode0(self, graph_name, stage=0):
        return self._internal(graph_name, stage, "input")

    def get_output_tensors_addrmode0(self, graph_name, stage=0):
        return self._internal(graph_name, stage, "output")

    def create_max_input_tensors(self, graph_name):
        """New memory of the first stage's shapes."""
        return self._created(graph_name, "input")

    def create_max_output_tensors(self, graph_name):
        """New memory of the first stage's shapes."""
        return self._created(graph_name, "output")

    def process(self, graph_name, input, output, core_list=(0,)):  # noqa: A002
        """Run a net: shapes are the tensors', number types the net's. Some faults end the process."""
        c, net = simulator(), self._nets[graph_name]
        given = self._launched(graph_name, "input", input)
        made = self._launched(graph_name, "output", output)
        counts = (given, net.input_count, made, net.output_count)
        if not c.bmrt_launch_tensor_ex(self._runtime, graph_name.encode(), *counts, True, True):
            raise RuntimeError("bmrt_launch_tensor_ex fail!")
        c.check("bm_thread_sync", c.handle)

    def _count(self, graph_name, side):
        return getattr(self._nets[graph_name], f"{side}_count")

    def _dtypes(self, graph_name, side):
        dtypes = getattr(self._nets[graph_name], f"{side}_dtypes")
        return [Dtype(dtypes[place]) for place in range(self._count(graph_name, side))]

    def _shapes(self, graph_name, stage, side):
        if not 0 <= stage < self.get_stage_num(graph_name):
            raise IndexError(f"{graph_name} has no stage {stage}")
        shapes = getattr(self._nets[graph_name].stages[stage], f"{side}_shapes")
        return [shapes[place].as_list() for place in range(self._count(graph_name, side))]

    def _internal(self, graph_name, stage, side):
        memories = getattr(self._nets[graph_name].stages[stage], f"{side}_memories")
        parts = zip(self._shapes(graph_name, stage, side), self._dtypes(graph_name, side), strict=True)
        return {place: Tensor.internal(*part, memories[place]) for place, part in enumerate(parts)}

    def _created(self, graph_name, side):
        parts = zip(self._shapes(graph_name, 0, side), self._dtypes(graph_name, side), strict=True)
        return {place: Tensor(Handle(0), *part, False, True) for place, part in enumerate(parts)}

    def _launched(self, graph_name, side, tensors):
        """A missing tensor would be a null pointer to sail, and the end of the process."""
        dtypes = self._dtypes(graph_name, side)
        launched = (LaunchTensor * len(dtypes))()
        for place, dtype in enumerate(dtypes):
            tensor = tensors[place]
            launched[place] = LaunchTensor(dtype.value, Shape.of(tensor.shape()), tensor.memory, 0)
        return launched
