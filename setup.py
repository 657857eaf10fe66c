"""WhenLM is used from a checkout, as other experiment codebases are, so there is nothing to build but its entry points.

Its folders have everyday names (``metrics``, ``models``): in site-packages they would meet those of other projects.
"""

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.sdist import sdist

REFUSAL = "WhenLM is used from a checkout: clone it, and run `pip install -e .` there. No wheel and no sdist is offered"


class NoWheel(bdist_wheel):
    """``pip install -e .`` uses this command, too, but does not run it."""

    def run(self) -> None:
        """Refuse."""
        raise SystemExit(REFUSAL)


class NoSdist(sdist):
    """An archive of the sources would be installed as a wheel."""

    def run(self) -> None:
        """Refuse."""
        raise SystemExit(REFUSAL)


setup(cmdclass={"bdist_wheel": NoWheel, "sdist": NoSdist})
