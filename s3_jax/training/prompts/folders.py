"""Training data of the prompt head: folders, their shares of the views, and held-out videos."""

from s3_jax.data.prompt_pictures import PictureFolderConfig

HELD_OUT_VIDEOS = ("hockey", "mallard-fly", "soccerball", "swing")
STILLS = (
    PictureFolderConfig("stills/ecssd/images", "stills/ecssd/masks", 0.34, binary=True),
    PictureFolderConfig(
        "stills/coco_instances/images", "stills/coco_instances/masks", 0.17, smallest=0.004
    ),
    PictureFolderConfig("stills/voc2007_instances/images", "stills/voc2007_instances/masks", 0.03),
)
FOLDERS = (
    PictureFolderConfig(
        "davis2016_train/JPEGImages",
        "davis2016_train/Annotations",
        0.40,
        binary=True,
        every=4,
        held_out=HELD_OUT_VIDEOS,
    ),
    *STILLS,
    PictureFolderConfig("bsds500/images", "bsds500/regions", 0.06, smallest=0.03),
)
