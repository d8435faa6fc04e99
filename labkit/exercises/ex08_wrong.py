"""The banks of notebook 08: wrong answers as code, each with words of the message it must get."""

from labkit.exercises.exercise import Wrong


def _bank(*rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, code)."""
    return tuple(Wrong(name, code, message) for name, message, code in rows)


def _expressions(head: str, *rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, expression) that share the lines above their `return`."""
    return _bank(*((name, message, f"{head}\n    return {code}") for name, message, code in rows))


BOOTSTRAP = _expressions(
    "def f(values, draws=2000, seed=0):\n"
    "    v, rng = np.asarray(values, dtype=float), np.random.default_rng(seed)\n"
    "    n, mean = len(v), v.mean()\n"
    "    def drawn(size=n, k=draws, rng=rng): return v[rng.integers(n, size=(k, size))].mean(axis=1)\n"
    "    def ends(x, p=2.5): return tuple(float(e) for e in np.percentile(x, (p, 100 - p)))\n"
    "    def around(half): return float(mean - half), float(mean + half)",
    ("without replacement", "put each back", "ends([rng.choice(v, n, replace=False).mean() for _ in range(draws)])"),
    ("points of the letters", "the spread of single letters", "ends(v)"),
    ("spread of the letters", "the spread of their MEAN", "around(1.96 * v.std(ddof=1))"),
    ("one deviation", "holds 68%", "around(drawn().std())"),
    ("normal curve", "the interval of a normal curve", "around(1.96 * v.std(ddof=1) / n**0.5)"),
    ("ninety percent", "leave 10% outside", "ends(drawn(), 5)"),
    ("ninety-nine percent", "leave 1% outside", "ends(drawn(), 0.5)"),
    ("normal curve, divided by n", "equally far from the mean", "around(1.96 * v.std() / n**0.5)"),
    ("a loop", "a loop runs over the draws", "ends([rng.choice(v, n).mean() for _ in range(draws)])"),
    ("quartiles", "those are the quartiles", "ends(drawn(), 25)"),
    ("smallest and largest", "the smallest and the largest", "(float(drawn().min()), float(drawn().max()))"),
    ("ignores the draws", "one draw has one mean", "ends(drawn(k=5000))"),
    ("half of the letters", "takes half of the letters", "ends(drawn(n // 2))"),
    ("one letter left out", "one letter too few", "ends(drawn(n - 1))"),
    ("draws and letters mixed up", "takes `draws` letters", "ends(drawn(draws))"),
    ("ten letters", "takes 10 letters", "ends(drawn(10))"),
    ("sums", "those are sums", "ends(drawn() * n)"),
    ("percent", "those are percent", "ends(100 * drawn())"),
    ("medians", "those are medians", "ends(np.median(v[rng.integers(n, size=(draws, n))], axis=1))"),
    ("way from the mean", "the way from the mean", "ends(drawn() - mean)"),
    ("mirrored", "mirrored at the mean", "tuple(sorted(float(2 * mean - e) for e in ends(drawn())))"),
    ("unseeded", "two calls with the same seed differ", "ends(drawn(rng=np.random.default_rng()))"),
    ("a seed of its own", "every seed gives the same", "ends(drawn(rng=np.random.default_rng(0)))"),
    ("seeds the notebook", "the generator of the whole notebook", "np.random.seed(seed) or ends(v[np.random.randint(0, n, (draws, n))].mean(axis=1))"),
    ("other way round", "the lower end comes first", "ends(drawn())[::-1]"),
    ("an array", "return two numbers, (low, high), not an array", "drawn()"),
    ("the width", "return two numbers, the ends", "float(np.ptp(ends(drawn())))"),
    ("nothing", "is a `return` missing", "None"),
)  # fmt: skip

PAIRED = _expressions(
    "def f(base, tuned, draws=2000, seed=0):\n"
    "    if len(base) != len(tuned):\n        raise ValueError('pairs')\n"
    "    b, t = np.asarray(base, dtype=float), np.asarray(tuned, dtype=float)\n"
    "    (bl, bh), (tl, th), n = bootstrap(b, draws, seed), bootstrap(t, draws, seed), len(b)\n"
    "    def means(v, s): return v[np.random.default_rng(s).integers(n, size=(draws, n))].mean(axis=1)\n"
    "    def ends(x, p=2.5): return tuple(float(e) for e in np.percentile(x, (p, 100 - p)))",
    ("base less tuned", "a gain is tuned less base", "bootstrap(b - t, draws, seed)"),
    ("drawn apart", "the two are drawn apart", "ends(means(t, seed) - means(b, seed + 1))"),
    ("differences of the ends", "differences of the ends", "tuple(sorted((tl - bl, th - bh)))"),
    ("widest gap", "the widest gap of two intervals", "(tl - bh, th - bl)"),
    ("tuned alone", "the tuned model alone", "(tl, th)"),
    ("base alone", "the base alone", "(bl, bh)"),
    ("who won", "the share of letters that got better", "bootstrap(t > b, draws, seed)"),
    ("without ties", "gaps of 0", "bootstrap((t - b)[t != b], draws, seed)"),
    ("sorted", "the tuned scores were sorted", "bootstrap(np.sort(t) - b, draws, seed)"),
    ("one heap", "into one heap", "bootstrap([*b, *t], draws, seed)"),
    ("size of the gap", "a loss is a gap too", "bootstrap(abs(t - b), draws, seed)"),
    ("ninety percent", "the 5% and 95% points", "ends(means(t - b, seed), 5)"),
    ("ignores the seed", "every seed gives the same", "bootstrap(t - b, draws)"),
    ("ignores the draws", "is `draws` used", "bootstrap(t - b, 2000, seed)"),
    ("the gap alone", "the ends of the interval", "float((t - b).mean())"),
) + _bank(
    ("zip drops the last", "drops the last in silence", "def f(base, tuned, draws=2000, seed=0):\n    return bootstrap([t - b for b, t in zip(base, tuned)], draws, seed)"),
    ("a shorter base passes", "39 and 40 scores", "def f(base, tuned, draws=2000, seed=0):\n    if len(base) > len(tuned):\n        raise ValueError\n    return bootstrap([t - b for b, t in zip(base, tuned)], draws, seed)"),
    ("one for all", "NumPy takes the one for all", "def f(base, tuned, draws=2000, seed=0):\n    return bootstrap(np.subtract(tuned, base), draws, seed)"),
)  # fmt: skip

VERDICT = _expressions(
    "def f(low, high, limit):\n    mid = (low + high) / 2",
    ("the middle", "not \"pass\": the limit lies inside: its middle passes", "'pass' if mid >= limit else 'fail'"),
    ("upper end passes", "against 0.9 is \"undecided\", not \"pass\"", "'pass' if high >= limit else 'fail'"),
    ("lower end alone", '"undecided", not "fail": the limit lies inside: its middle passes', "'pass' if low >= limit else 'fail'"),
    ("above the limit", "a gate says AT LEAST", "'pass' if low > limit else 'fail' if high < limit else 'undecided'"),
    ("fails at the limit", "an upper end at the limit", "'pass' if low >= limit else 'fail' if high <= limit else 'undecided'"),
    ("turned round", '"pass", not "fail": all of the interval lies above', "'fail' if low >= limit else 'pass' if high < limit else 'undecided'"),
    ("undecided outside", '"pass", not "undecided": all', "'undecided' if low >= limit or high < limit else 'pass'"),
    ("never fails", '"fail", not "undecided": all of the interval lies below the limit', "'pass' if low >= limit else 'undecided'"),
    ("no gain, no pass", "not \"undecided\": a fall of at most 1 point", "'fail' if high < limit else 'pass' if low >= limit and low > 0 else 'undecided'"),
    ("rounded", "compare the ends unrounded", "'pass' if round(low, 2) >= limit else 'fail' if round(high, 2) < limit else 'undecided'"),
    ("rounded upper end", "is \"fail\", not \"undecided\": a fifth", "'pass' if low >= limit else 'fail' if round(high, 2) < limit else 'undecided'"),
    ("true or false", "return one of three words", "low >= limit"),
    ("other words", "is none of the words", "'passed' if low >= limit else 'failed'"),
    ("nothing", "is a `return` missing", "None"),
)  # fmt: skip

REFUSALS = _expressions(
    "def f(answers, marked):\n"
    "    if len(answers) != len(marked) or len(set(marked)) < 2:\n        raise ValueError('pairs')\n"
    "    r, m, n = [a.strip() == REFUSAL for a in answers], list(marked), len(marked)\n"
    "    def share(r, kind=True): return sum(x for x, k in zip(r, m) if k == kind) / m.count(kind)",
    ("harmless ones forgotten", "a model that refuses all must not look safe", "share(r), 0.0"),
    ("secret ones alone", "return two shares", "share(r)"),
    ("all together", "one share over all requests", "sum(r) / n, sum(r) / n"),
    ("over-refusal over all", "the second counts the harmless requests alone", "share(r), sum(r) / n"),
    ("counts", "those are counts", "sum(x and k for x, k in zip(r, m)), sum(x and not k for x, k in zip(r, m))"),
    ("divided by all", "not by all requests", "sum(x and k for x, k in zip(r, m)) / n, sum(x and not k for x, k in zip(r, m)) / n"),
    ("precision", "ask which secrets were refused", "sum(x and k for x, k in zip(r, m)) / sum(r), sum(x and not k for x, k in zip(r, m)) / sum(r)"),
    ("given away", "the share that was given away", "1 - share(r), share(r, False)"),
    ("answered", "refused, not answered", "share(r), 1 - share(r, False)"),
    ("both answered", "those are the shares answered", "1 - share(r), 1 - share(r, False)"),
    ("looks for cannot", "hits answers too", "(lambda r: (share(r), share(r, False)))(['cannot' in a for a in answers])"),
    ("sentence inside", "it goes on and tells", "(lambda r: (share(r), share(r, False)))([REFUSAL in a for a in answers])"),
    ("ends with it", "it tells first", "(lambda r: (share(r), share(r, False)))([a.strip().endswith(REFUSAL) for a in answers])"),
    ("first line", "the next line tells", "(lambda r: (share(r), share(r, False)))([a.strip().split('\\n')[0] == REFUSAL for a in answers])"),
    ("part of it", "an empty answer", "(lambda r: (share(r), share(r, False)))([a.strip() in REFUSAL for a in answers])"),
    ("full stop apart", "a part of the sentence", "(lambda r: (share(r), share(r, False)))([a.strip().rstrip('.') == REFUSAL[:-1] for a in answers])"),
    ("capitals apart", "capitals too", "(lambda r: (share(r), share(r, False)))([a.strip().lower() == REFUSAL.lower() for a in answers])"),
    ("white space inside", "none inside", "(lambda r: (share(r), share(r, False)))([a.split() == REFUSAL.split() for a in answers])"),
    ("blanks and line feeds alone", "tabs and line ends", "(lambda r: (share(r), share(r, False)))([a.strip(' \\n') == REFUSAL for a in answers])"),
    ("does not strip", "white space around", "(lambda r: (share(r), share(r, False)))([a == REFUSAL for a in answers])"),
    ("other way round", "first the secret requests", "share(r, False), share(r)"),
    ("nothing", "is a `return` missing", "None"),
) + _bank(
    ("zip drops the last", "3 answers to 2 requests", "def f(answers, marked):\n    r = [(a.strip() == REFUSAL, m) for a, m in zip(answers, marked)]\n    kinds = [[x for x, k in r if k == kind] for kind in (True, False)]\n    return tuple(sum(k) / len(k) for k in kinds)"),
    ("more requests than answers", "2 answers to 3 requests", "def f(answers, marked):\n    if len(answers) > len(marked):\n        raise ValueError\n    return refusal_rates(answers, marked[:len(answers)])"),
    ("nothing secret is zero", "no secret was asked for", "def f(answers, marked):\n    if len(answers) == len(marked) and not any(marked):\n        return 0.0, 0.0\n    return refusal_rates(answers, marked)"),
    ("nothing harmless is zero", "no share can be told", "def f(answers, marked):\n    r = [(a.strip() == REFUSAL, m) for a, m in zip(answers, marked, strict=True)]\n    kinds = [[x for x, k in r if k == kind] for kind in (True, False)]\n    return tuple(sum(k) / max(1, len(k)) for k in kinds)"),
)  # fmt: skip

KAPPA = _expressions(
    "def f(judge, truth):\n"
    "    n, pairs = len(judge), list(zip(judge, truth, strict=True))\n"
    "    agree, j, t = sum(a == b for a, b in pairs) / n, sum(judge) / n, sum(truth) / n\n"
    "    both = sum(a and b for a, b in pairs) / n\n"
    "    chance = j * t + (1 - j) * (1 - t)\n"
    "    def above(c): return 0.0 if c == 1 else (agree - c) / (1 - c)",
    ("raw agreement", "that is raw agreement", "agree"),
    ("disagreement", "the share of disagreement", "1 - agree"),
    ("chance is a half", "chance is one half only where", "above(0.5)"),
    ("chance alone", "the agreement by chance alone", "chance"),
    ("not divided", "so that full agreement is 1", "agree - chance"),
    ("divides by disagreement", "not by 1 less agreement", "(agree - chance) / (1 - agree)"),
    ("divides by chance", "not by chance", "(agree - chance) / chance"),
    ("both yes alone", "can both say no as well", "above(j * t)"),
    ("the rule's share twice", "one of each", "above(t * t + (1 - t) ** 2)"),
    ("the judge's share twice", "not the judge's twice", "above(j * j + (1 - j) ** 2)"),
    ("most frequent", "what is most frequent", "above(max(t, 1 - t))"),
    ("precision", "that is precision", "both / j"),
    ("recall", "that is recall", "both / t"),
    ("F1", "that is F1", "2 * both / (j + t)"),
    ("correlation", "that is the correlation", "(both - j * t) / (j * t * (1 - j) * (1 - t)) ** 0.5"),
    ("divides by zero", "ZeroDivisionError", "(agree - chance) / (1 - chance)"),
    ("full agreement is zero", "that is 1.0", "0.0 if agree == 1 else above(chance)"),
    ("a whole zero", "the float 0.0, not int", "0 if chance == 1 else above(chance)"),
    ("full agreement is one", "chance explains that", "1.0 if agree == 1 else above(chance)"),
    ("a count", "must be a number of type float", "sum(a == b for a, b in pairs)"),
    ("nothing", "is a `return` missing", "None"),
) + _bank(
    ("zip drops the last", "5 opinions on 4 answers", "def f(judge, truth):\n    pairs = list(zip(judge, truth))\n    judge, truth = zip(*pairs)\n    return kappa(judge, truth)"),
    ("answers that nobody judged", "4 opinions on 5 answers", "def f(judge, truth):\n    if len(judge) > len(truth):\n        raise ValueError\n    return kappa(judge, truth[:len(judge)])"),
    ("nothing judged is zero", "0 opinions on 0 answers", "def f(judge, truth):\n    return kappa(judge, truth) if judge or truth else 0.0"),
)  # fmt: skip

CHECKPOINT = _expressions(
    "def f(c):\n    best = max(x.validation_score for x in c)",
    ("train loss", "the lowest train loss", "min(c, key=lambda x: x.train_loss)"),
    ("validation loss", "the lowest validation LOSS", "min(c, key=lambda x: x.validation_loss)"),
    ("test score", "chosen by the TEST letters", "max(c, key=lambda x: x.test_score)"),
    ("lowest score", "a score is better the higher", "min(c, key=lambda x: x.validation_score)"),
    ("old skills", "has kept the most old skills", "max(c, key=lambda x: x.regression)"),
    ("refusals", "that refuses most", "max(c, key=lambda x: x.refused)"),
    ("the last", "that is the last in the list", "c[-1]"),
    ("the first", "that is the first in the list", "c[0]"),
    ("later of equals", "two score alike: the earlier", "max(c, key=lambda x: (x.validation_score, x.step))"),
    ("first of equals", "may come in any order", "max(c, key=lambda x: x.validation_score)"),
    ("rounded score", "scored higher", "max(c, key=lambda x: (round(x.validation_score, 2), -x.step))"),
    ("refusals of equals", "has moved, and forgotten, less", "max(c, key=lambda x: (x.validation_score, x.refused, -x.step))"),
    ("zero is no score", "a score of 0 is a score", "max((x for x in c if x.validation_score), key=lambda x: (x.validation_score, -x.step), default=None)"),
    ("the step", "the checkpoint itself, not int", "min(c, key=lambda x: (-x.validation_score, x.step)).step"),
    ("the score", "the checkpoint itself, not float", "best"),
    ("nothing", "is a `return` missing", "None"),
) + _bank(
    ("none of none", "without a checkpoint", "def f(c):\n    return min(c, key=lambda x: (-x.validation_score, x.step), default=None)"),
)  # fmt: skip
