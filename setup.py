"""Compile the engine with mypyc and put `functions/`, `schema/` and `knative/` into the wheel.

CANDLEMILL_PURE=1    build without compiling: the same sources, interpreted.
CANDLEMILL_NATIVE=1  tune the compiled code for this machine (-march=native); not for wheels that travel.
"""

import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
CORE = ROOT / "core/candlemill"
SOURCES = [*(CORE / "engine").glob("*.py"), CORE / "exchanges/binance/kline_csv.py"]
PLAIN = {"__init__.py", "book.py"}  # records that strategies make: see engine/book.py
ENGINE = sorted(str(path.relative_to(ROOT)) for path in SOURCES if path.name not in PLAIN)

SHARED = (("functions", "*/main.py"), ("schema", "**/*.sql"), ("schema", "**/*.json"), ("knative", "**/*.yaml"))


class BuildPy(build_py):
    """Also carries the files that the installed program reads at run time."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # a checkout is read in place
            return
        share = Path(self.build_lib) / "candlemill" / "_share"
        for folder, pattern in SHARED:
            for source in (ROOT / folder).glob(pattern):
                target = share / source.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)


def extensions() -> list:
    if os.environ.get("CANDLEMILL_PURE") == "1":
        return []
    from mypyc.build import mypycify

    modules = mypycify(ENGINE, opt_level="3", group_name="candlemill_engine")
    for module in modules:
        # No fused multiply-add: the same floats on every machine. Our functions may be inlined into each other. 64 bits
        # wrap around: engine/wide.py corrects guesses by it.
        module.extra_compile_args += ["-ffp-contract=off", "-fno-semantic-interposition", "-fwrapv"]
        if os.environ.get("CANDLEMILL_NATIVE") == "1":
            module.extra_compile_args += ["-march=native"]
    return modules


setup(ext_modules=extensions(), cmdclass={"build_py": BuildPy})
