"""Which vector instructions the step is compiled for."""

from enum import Enum

import torch


class Instructions(Enum):
    """Sets of vector instructions, the fastest first; each is a library of its own."""

    AVX512 = "avx512"
    AVX2 = "avx2"

    @property
    def compiler_flags(self) -> tuple[str, ...]:
        """What the compiler may use."""
        return _FLAGS[self]

    @property
    def is_available(self) -> bool:
        """Whether this processor has them all."""
        has = torch.cpu.get_capabilities()
        return all(has.get(name, False) for name in _NEEDED[self])


_FLAGS = {
    Instructions.AVX2: ("-mavx2", "-mfma"),
    Instructions.AVX512: (
        *("-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512vl"),
        *("-mavx512dq", "-mavx512bf16", "-mavx512vnni"),
    ),
}

#: torch's names of what each of them needs.
_NEEDED = {
    Instructions.AVX2: ("avx2", "fma3"),
    Instructions.AVX512: (
        *("avx2", "fma3", "avx512_f", "avx512_bw", "avx512_vl"),
        *("avx512_dq", "avx512_bf16", "avx512_vnni"),
    ),
}


#: What a processor is told that no set is for.
LACKS_INSTRUCTIONS = "has neither AVX-512 with bfloat16 and VNNI nor AVX2"


def best_instructions() -> Instructions | None:
    """Return the fastest set that this processor has, or None."""
    return next((one for one in Instructions if one.is_available), None)
