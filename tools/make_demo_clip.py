from s3_jax.cli import command, demo_clip

if __name__ == "__main__":
    command.run(demo_clip.main)
