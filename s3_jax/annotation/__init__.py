"""The masks of one video while someone makes them: given, found from those, corrected, exported.

`annotator` holds what is given and finds the rest; `chain` runs a session over the frames in one
direction, with snapshots (`snapshots`) to go back to; `found` says what a frame's result is.

The page: `access` and `server` serve it, `studio` does what it asks for, `document` and `journal`
keep what people made, `worker` is the thread that owns the annotator, `results` what it found.
"""
