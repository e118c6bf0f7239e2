"""From a pool to a finished store: the stages of a build, its plan and its engines."""
