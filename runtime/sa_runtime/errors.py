"""The one exception tree of the project.

::

    SaDeployError                 anything a user can mend: one line, exit code 2
    ├── InputError                a file, array or option that cannot be used as given
    │   ├── DatasetError          a re-identification data set whose layout or content is wrong
    │   ├── DetectionError        a detection file that cannot be read
    │   └── VideoError            a video that cannot be opened or decoded
    ├── ContractError             no contract, a changed one, or another feature space
    ├── CheckpointError           weights that cannot be loaded
    ├── TrainingError             a training that cannot go on
    ├── BuildError                an engine that could not be built
    ├── RunnerError               a runtime that failed while opening or running a model
    ├── MissingPackageError       an optional package that is not installed
    ├── RegressionError           a build that is slower than its base; exit code 3
    └── ParityError               an artefact that disagrees with its network; exit code 3

A message names the offending thing, says what came and what was expected, and
ends with the command or option that mends it.
"""

from __future__ import annotations


class SaDeployError(Exception):
    """Base of every error a user can mend."""

    exit_code = 2


class InputError(SaDeployError):
    """A file, array or option that cannot be used as given."""


class DatasetError(InputError):
    """A re-identification data set whose layout or content is wrong."""


class DetectionError(InputError):
    """A detection file that cannot be read."""


class VideoError(InputError):
    """A video that cannot be opened or decoded."""


class ContractError(SaDeployError):
    """An artefact without a contract, with a changed one, or of another feature space."""


class CheckpointError(SaDeployError):
    """Weights that cannot be loaded."""


class TrainingError(SaDeployError):
    """A training that cannot go on."""


class BuildError(SaDeployError):
    """An engine that could not be built."""


class RunnerError(SaDeployError):
    """A runtime that failed while opening or running a model."""


class MissingPackageError(SaDeployError):
    """An optional package that is not installed."""


class RegressionError(SaDeployError):
    """A build that is slower than its base."""

    exit_code = 3


class ParityError(SaDeployError):
    """An artefact whose embeddings disagree with the network it was exported from."""

    exit_code = 3
