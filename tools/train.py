from s3_jax.cli import command, train

if __name__ == "__main__":
    command.run(train.main)
