"""Tools for maintainers: the fit of PipeBench, and the package for OptunaHub."""
