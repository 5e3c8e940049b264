"""Interactive annotation of one video: masks are given, propagated, corrected and exported.

`annotator` holds the given masks and finds the rest; `chain` runs a session over the frames in one
direction, with snapshots (`snapshots`) to return to; `found` describes a frame's result.

The page: `access` and `server` serve it, `studio` handles its requests, `document` and `journal`
keep the user's edits, `worker` is the thread that owns the annotator, and `project` keeps its
results.
"""
