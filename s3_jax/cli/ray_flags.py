"""Flags of commands that spread their work over a Ray cluster (`s3_jax.cluster`)."""

from absl import flags

from s3_jax.cluster import NEW


class _AddressParser(flags.ArgumentParser):
    """Parser for `--ray` alone, which absl passes as "true", and for `--ray=ADDRESS`."""

    def parse(self, argument: str) -> str | None:
        return {"true": NEW, "false": None}.get(argument, argument)


RAY: flags.FlagHolder[str | None] = flags.DEFINE_flag(
    flags.Flag(
        _AddressParser(),
        flags.ArgumentSerializer(),
        "ray",
        None,
        "Distribute the work over a Ray cluster: --ray=HOST:PORT, --ray=auto for the cluster that "
        "this machine belongs to, or --ray alone for processes on this machine. All machines must "
        "see the same paths. Needs pip install 's3_jax[ray]'.",
        boolean=True,
    )
)
