"""The clip that comes with the package: its drawing, its files, and a measure of tracking."""
