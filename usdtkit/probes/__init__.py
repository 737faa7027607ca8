"""The application's side: declared probes → an ELF file → loaded into the process → fired.

`declaration` checks what is declared, `image` makes the bytes of the file, `files` puts them where every tracer can
read them, the compiled `usdtkit._probe` maps and fires them, and `provider` holds these together.
"""

from usdtkit.probes.provider import Probe, Provider

__all__ = ["Probe", "Provider"]
