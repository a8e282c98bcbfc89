"""File-system suites that package registries carry, run in ``files/`` of a mounted branch: ``make suites``."""
