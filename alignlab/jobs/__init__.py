"""One file an algorithm: load, build, run, record."""
