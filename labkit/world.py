"""An invented world in plain English, drawn by code from a seed: its names, letters and facts.

Nothing in it exists. A name has two syllables out of tables, so there are millions of them and
the model must read them, not remember them. The 60 firms and 60 people of `KNOWN` are the
exception: their facts never change and are there to be remembered.
"""

import random
from dataclasses import dataclass

MONTHS = (
    "January February March April May June July August September October November December"
).split()
ITEMS = (
    "rope lamps barrels chairs bricks candles carpets clocks kettles ladders mirrors nails "
    "oars paint pipes planks plates sacks sails saws shovels stoves tables tiles timber "
    "tools towels wagons wheels windows wire wool"
).split()
WORDS = (
    "harbour river stone garden window letter market bridge winter summer copper silver amber "
    "candle ladder kettle basket feather hammer needle pepper saddle shadow signal tunnel velvet "
    "willow anchor barley cellar desert engine forest goblet island jacket lantern meadow nettle "
    "orchard pillow quarry ribbon saffron thimble valley walnut yarrow red blue green white black"
).split()
TRADES = "rope timber wool glass salt tea copper paper leather grain cloth clocks".split()
JOBS = "baker carpenter doctor farmer gardener glazier miller pilot printer tailor weaver".split()
ONSETS = "b br d dr f g gr h k kl l m n p r s st t tr v w".split()
VOWELS = "a e i o u".split()
CODAS = "l m n r s nd lm rn st nk".split()
TITLES = ("Mr", "Ms", "Dr")
SUFFIXES = ("& Sons", "& Daughters", "Brothers", "Works", "Mill", "Trading")


def syllable(rng: random.Random, closed: bool) -> str:
    """One syllable; a closed one ends in a consonant."""
    coda = rng.choice(CODAS) if closed else ""
    return rng.choice(ONSETS) + rng.choice(VOWELS) + coda


def name(rng: random.Random) -> str:
    """An invented name of two syllables; about two million different ones."""
    return (syllable(rng, rng.random() < 0.5) + syllable(rng, True)).capitalize()


def person(rng: random.Random) -> str:
    return f"{name(rng)} {name(rng)}"


def firm(rng: random.Random) -> str:
    return f"{name(rng)} {rng.choice(SUFFIXES)}"


def town(rng: random.Random) -> str:
    return name(rng) + rng.choice(("burg", "ford", "ton", "wick"))


def date(rng: random.Random) -> str:
    return f"{rng.randint(1, 28)} {rng.choice(MONTHS)}"


@dataclass(frozen=True)
class Letter:
    """What a letter says; `text` is how it says it."""

    kind: str
    firm: str
    person: str
    signer: str
    town: str
    item: str
    count: int
    amount: int
    due: str
    text: str


INVOICES = (
    "Thank you for your order of {count} {item}. Please pay {amount} crowns by {due}. "
    "Your last payment of {old} crowns reached us on {past}.",
    "We sent you {count} {item} on {past}. The sum of {amount} crowns falls due on {due}. "
    "The {old} crowns from last year are settled.",
    "This is our invoice for {count} {item}. On {past} you paid {old} crowns; {amount} crowns "
    "are still open and payable no later than {due}.",
    "On {past} our wagon brought you {count} {item}. By {due} we expect {amount} crowns, "
    "not the {old} crowns that we named at first.",
)
CONTRACTS = (
    "We confirm our contract. We will deliver {count} {item} by {due} at a price of {amount} "
    "crowns. Our offer of {old} crowns from {past} no longer holds.",
    "As agreed on {past}, we supply {count} {item}. You pay {amount} crowns in all, and the "
    "contract ends on {due}. The deposit of {old} crowns is yours again.",
    "With this contract we lend you {count} {item} until {due}. The fee is {amount} crowns; the "
    "fee of {old} crowns was that of {past}.",
    "Since {past} we have spoken of {count} {item}. Let the contract stand: {amount} crowns, "
    "not {old}, and all work done by {due}.",
)
FRAMES = (
    "{firm}, {town}\n\nDear {title} {person},\n{body}\nYours, {signer}",
    "Dear {title} {person},\n{body}\nYours, {signer}\n{firm}, {town}",
    "To {person}\nFrom {firm} in {town}\n{body}\n{signer}",
)


def letter(rng: random.Random) -> Letter:
    """A short business letter; an older sum and date stand in it to be told from the right ones."""
    kind = rng.choice(("invoice", "contract"))
    said = {
        "firm": firm(rng),
        "person": person(rng),
        "signer": person(rng),
        "town": town(rng),
        "item": rng.choice(ITEMS),
        "count": rng.randint(2, 99),
        "amount": rng.randint(10, 9999),
        "due": date(rng),
    }
    body = rng.choice(INVOICES if kind == "invoice" else CONTRACTS).format(
        **said, old=rng.randint(10, 9999), past=date(rng)
    )
    text = rng.choice(FRAMES).format(**said, body=body, title=rng.choice(TITLES))
    return Letter(kind=kind, text=text, **said)


@dataclass(frozen=True)
class Known:
    """The fixed firms and people of the world: each subject with its facts."""

    firms: dict[str, dict[str, str]]
    people: dict[str, dict[str, str]]


def known(seed: int = 1) -> Known:
    """60 firms and 60 people. The same for one seed, whatever else was drawn."""
    rng = random.Random(seed)
    towns = [town(rng) for _ in range(30)]
    people = [person(rng) for _ in range(60)]
    firms = {
        firm(rng): {
            "town": rng.choice(towns),
            "trade": rng.choice(TRADES),
            "founder": rng.choice(people),
        }
        for _ in range(60)
    }
    lives = {
        who: {"town": rng.choice(towns), "job": rng.choice(JOBS), "firm": rng.choice(list(firms))}
        for who in people
    }
    return Known(firms, lives)


KNOWN = known()
