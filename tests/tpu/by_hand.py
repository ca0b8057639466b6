"""A compiled language model, run launch by launch as its contract says, with nothing of Lectern's."""

import numpy

#: What a masked place holds, in the bit patterns of the two formats; both are about -10,000.
MASKED = {"BM_BFLOAT16": 0xC61C, "BM_FLOAT16": 0xF0E2}


class ByHand:
    """One bmodel with batch 1. A cache is a list of (keys, values), one pair of tensors per layer."""

    def __init__(self, sail, path, masked=None):
        self.sail, self.engine, self.handle = sail, sail.EngineLLM(str(path), [0]), sail.Handle(0)
        names = self.engine.get_graph_names()
        self.layers = len([name for name in names if name.startswith("block_cache_")])
        self.capacity = self.engine.get_input_shape("block_cache_0", 3)[1]
        self.width = self.engine.get_input_shape("block_0", 0)[1]
        self.is_dynamic = self.engine.get_is_dynamic("block_0")
        self.dtype = self.engine.get_input_dtype("block_0", 0)
        self.masked = MASKED[self.dtype.name] if masked is None else masked

    def cache(self):
        """Zeros: a mask is only added, so what is masked must not be larger than the mask."""
        shape = self.engine.get_input_shape("block_cache_0", 3)
        zeros = numpy.zeros(shape, numpy.uint16)
        return [(self.tensor(shape, zeros), self.tensor(shape, zeros)) for _ in range(self.layers)]

    def tensor(self, shape, data=None, dtype=None):
        tensor = self.sail.Tensor(self.handle, list(shape), dtype or self.dtype, False, True)
        if data is not None:
            tensor.update_data(numpy.asarray(data).reshape(shape))
        return tensor

    def ids(self, values):
        return self.tensor([1, len(values)], numpy.array(values, numpy.int32), self.sail.Dtype.BM_INT32)

    def launch(self, graph, *inputs):
        """Return the outputs; they have memory for the greatest size."""
        outputs = self.engine.create_max_output_tensors(graph)
        self.engine.process(graph, dict(enumerate(inputs)), outputs)
        return list(outputs.values())

    def prefill(self, prompt, cache):
        """Return what the head makes of the last token."""
        count = len(prompt)
        rows = count if self.is_dynamic else self.width
        (states,) = self.launch("embedding", self.ids([*prompt, *[0] * (self.width - count)]))
        states.reshape([1, rows, states.shape()[2]])
        rest = [self.ids([*range(count), *[0] * (rows - count)])]
        if self.engine.get_input_num("block_0") == 3:
            rest.append(self.tensor([1, 1, rows, rows], self._causal(count, rows)))
        for layer, kept in enumerate(cache):
            made = self._block(f"block_{layer}", rows, states, *rest)
            states = made[0]
            self.keep(made[1:], kept, 0, count)
        return self.head(states, count - 1)

    def prefill_more(self, prompt, cache, known):
        """The same behind `known` tokens whose keys and values the cache has."""
        count = len(prompt)
        (states,) = self.launch("embedding", self.ids([*prompt, *[0] * (self.width - count)]))
        states.reshape([1, count, states.shape()[2]])
        positions = self.ids(range(known, known + count))
        for layer, kept in enumerate(cache):
            histories = [self.history(layer, place, known, kept) for place in (0, 1)]
            made = self._block(f"block_kv_{layer}", count, states, positions, *histories)
            states = made[0]
            self.keep(made[1:], kept, known, count)
        return self.head(states, count - 1)

    def decode(self, token, position, cache):
        (states,) = self.launch("embedding_cache", self.ids([token]))
        mask = numpy.zeros(self.capacity + 1, numpy.uint16)
        mask[position : self.capacity] = self.masked
        rest = (self.ids([position]), self.tensor([1, 1, 1, self.capacity + 1], mask))
        for layer, kept in enumerate(cache):
            states, *made = self.launch(f"block_cache_{layer}", states, *rest, *kept)
            self.keep(made, kept, position, 1)
        return self.head(states, 0)

    def head(self, states, row):
        hidden = states.shape()[2]
        (made,) = self.launch("lm_head", self.sail.Tensor(states, [1, hidden], row * hidden))
        return made.asnumpy()[0]

    def _block(self, graph, rows, *inputs):
        made = self.launch(graph, *inputs)
        for tensor in made:
            tensor.reshape([1, rows, *tensor.shape()[2:]])
        return made

    def history(self, layer, place, known, kept):
        """block_kv reads history in the net's own memory only."""
        own = self.engine.get_input_tensors_addrmode0(f"block_kv_{layer}")[2 + place]
        own.sync_d2d(kept[place], 0, 0, kept[place].size())
        return self.rows(own, known)

    def rows(self, tensor, count):
        """Return the first rows of a cache."""
        return self.sail.Tensor(tensor, [1, count, *tensor.shape()[2:]], 0)

    def keep(self, made, kept, start, count):
        for new, tensor in zip(made, kept, strict=True):
            row = tensor.size() // self.capacity
            tensor.sync_d2d(new, 0, start * row, count * row)

    def _causal(self, count, rows):
        mask = numpy.full((rows, rows), self.masked, numpy.uint16)
        for row in range(count):
            mask[row, : row + 1] = 0
        return mask
