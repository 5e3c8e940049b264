"""File layouts of the benchmarks. Each module lists the videos in a data directory."""
