"""In how few bits a frozen language model may be, see ``models.quantization``."""

from typing import Literal

Quantization = Literal["nf4", "int8"]
