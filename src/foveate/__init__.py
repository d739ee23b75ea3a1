"""Multi-scale language models: recent text sharp, distant text coarse."""

__version__ = "0.1.0"
