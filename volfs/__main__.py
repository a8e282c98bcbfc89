"""``python -m volfs`` is the command ``volfs``."""

from volfs.cli import main

main(prog_name="volfs")
