from s3_jax.cli import command, crossing_videos

if __name__ == "__main__":
    command.run(crossing_videos.main)
