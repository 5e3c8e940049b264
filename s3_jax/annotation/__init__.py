"""The masks of one video while someone makes them: given, found from those, corrected, exported.

`annotator` holds what is given and finds the rest; `chain` runs a session over the frames in one
direction, with snapshots (`snapshots`) to go back to; `found` says what a frame's result is.
"""
