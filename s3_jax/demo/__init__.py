"""The bundled clip: its rendering, its files, and a measure of tracking quality."""
