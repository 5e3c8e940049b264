"""Interactive annotation of a video: masks are given, propagated, corrected and exported.

`annotator` keeps the given masks and finds the others. `chain` runs a session over the frames in
one direction, with snapshots (`snapshots`) to return to. `found` describes a frame's result.

The page is served by `access` and `server`. `studio` handles its requests, `document` and `journal`
keep the user's edits, `worker` is the thread that owns the annotator, and `project` keeps the
results on disk.
"""
