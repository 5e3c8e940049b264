from s3_jax.cli import command, merge_scores

if __name__ == "__main__":
    command.run(merge_scores.main)
