"""The clip that comes with the package: how it is drawn, its files, and how well it is followed."""
