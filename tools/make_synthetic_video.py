from s3_jax.cli import command, synthetic_video

if __name__ == "__main__":
    command.run(synthetic_video.main)
