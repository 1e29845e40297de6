"""`python -m producer.making SHOP`: the process that producer.ahead starts."""

from __future__ import annotations

import sys


class WithoutPandas:
    """Arrow looks once whether there is pandas, and loads all of it to see whether a list is one of
    its series: a quarter of a second, a third of what there is to do before the first record."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def main() -> None:
    sys.meta_path.insert(0, WithoutPandas)
    import pyarrow as pa

    pa.array([0])
    # A generator may want it.
    sys.meta_path.remove(WithoutPandas)
    from producer.ahead import write

    write(sys.argv[1])


if __name__ == "__main__":
    main()
