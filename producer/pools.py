"""What Faker makes, made once: it is too slow to be asked for every event (some 2,700 people/s).

Every pool holds JSON text, quotes included, ready to stand in a record.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from faker import Faker

# Of all that Faker knows, what the pools are made of: it takes a quarter of the time to load.
PROVIDERS = [f"faker.providers.{name}" for name in ("person", "address", "company", "lorem")]
COUNTRIES = ("DE", "FR", "NL", "PL", "SE", "US")


@dataclass(frozen=True)
class Pools:
    first_names: list[str]
    last_names: list[str]
    mail_names: list[str]
    mail_hosts: list[str]
    streets: list[str]
    cities: list[str]
    regions: list[str]
    brands: list[str]
    things: list[str]
    headlines: list[str]
    opinions: list[str]


def quoted(text: str) -> str:
    return orjson.dumps(text).decode()


def make(seed: int) -> Pools:
    """The pools of a seed. Names and places of two languages, so that text is not ASCII alone."""
    fake = Faker(["de_DE", "en_US"], providers=PROVIDERS)
    fake.seed_instance(seed)

    def pool(size: int, method: str, **arguments: int) -> list[str]:
        make_one = getattr(fake, method)
        return [quoted(str(make_one(**arguments)).strip()) for _ in range(size)]

    ascii_names = [name for name in pool(400, "last_name") if name.isascii()]
    return Pools(
        first_names=pool(200, "first_name"),
        last_names=pool(300, "last_name"),
        mail_names=[
            "".join(sign for sign in name.lower() if sign.isalpha()) for name in ascii_names
        ],
        mail_hosts=["example.com", "example.org", "example.net", "mail.example.com"],
        streets=pool(300, "street_address"),
        cities=pool(150, "city"),
        regions=pool(30, "state"),
        brands=pool(40, "company"),
        things=[f"{word.capitalize()}" for word in fake.words(120, unique=True)],
        headlines=pool(120, "sentence", nb_words=4),
        opinions=pool(200, "paragraph", nb_sentences=2),
    )
