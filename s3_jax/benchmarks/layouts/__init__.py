"""File layouts of the benchmarks. Every module makes a list of videos from a directory."""
