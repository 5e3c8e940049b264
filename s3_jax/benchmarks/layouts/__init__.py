"""File layouts of the benchmarks; every module turns a directory into a list of videos."""
