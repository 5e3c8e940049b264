from s3_jax.cli import command, predict

if __name__ == "__main__":
    command.run(predict.main)
