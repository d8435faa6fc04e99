"""More banks of notebook 09: wrong exports and wrong bills, each with the message it must get."""

from labkit.exercises.exercise import Wrong


def _bank(head: str, rows: tuple[tuple[str, str, str], ...]) -> tuple[Wrong, ...]:
    """Rows of (name, message, expression) that share the lines above their `return`."""
    return tuple(Wrong(name, f"{head}\n    return {code}", told) for name, told, code in rows)


EXPORT = _bank(
    "def f(c, most):\n"
    "    high = {'r': 'lower it'} if c['r'] > most else {}\n"
    "    dora = {'use_dora': 'merge it'} if c.get('use_dora') else {}\n"
    "    more = {'modules_to_save': 'merge it'} if c.get('modules_to_save') else {}\n"
    "    bias = {'bias': 'merge it'} if c.get('bias', 'none') != 'none' else {}\n"
    "    seven = set('q_proj k_proj v_proj o_proj gate_proj up_proj down_proj'.split())\n"
    "    ranks = {'rank_pattern': 'one'} if c.get('rank_pattern') else {}\n"
    "    alphas = {'alpha_pattern': 'one'} if c.get('alpha_pattern') else {}\n"
    "    odd = {t.rpartition('.')[2] for t in c['target_modules']} - seven\n"
    "    heads = {'target_modules': 'leave it out'} if odd else {}\n"
    "    more, bias = more | ranks | alphas, bias | heads\n"
    "    right = high | dora | more | bias",
    (
        ("refuses nothing", "rank 17 is above 16", "{}"),
        ("no rank", "rank 17 is above 16: vLLM refuses it", "dora | more | bias"),
        ("refuses the limit itself", "a plain adapter at the largest rank loads", "right | ({'r': 'lower it'} if c['r'] >= most else {})"),
        ("fixed at 16", "the limit is what the server was started with", "({'r': 'x'} if c['r'] > 16 else {}) | dora | more | bias"),
        ("fixed at 64", "{'r': 17}, max_rank=16", "({'r': 'x'} if c['r'] > 64 else {}) | dora | more | bias"),
        ("never above 64", "rank 128 loads where max_lora_rank is 256", "right | ({'r': 'x'} if c['r'] > 64 else {})"),
        ("no DoRA", "vLLM has no DoRA: use_dora", "high | more | bias"),
        ("no whole modules", "modules_to_save must be refused", "high | dora | ranks | alphas | bias"),
        ("refuses an empty list", "an empty modules_to_save saves nothing", "right | ({'modules_to_save': 'x'} if c.get('modules_to_save') is not None else {})"),
        ("no bias", "trained biases are not loaded", "high | dora | more | heads"),
        ("no ranks by map", "drops rank_pattern in silence", "{k: v for k, v in right.items() if k != 'rank_pattern'}"),
        ("no alphas by map", "drops alpha_pattern in silence", "{k: v for k, v in right.items() if k != 'alpha_pattern'}"),
        ("takes the head", "an adapter of the head is none of", "{k: v for k, v in right.items() if k != 'target_modules'}"),
        ("short names alone", "a full name ends in one of the seven", "right | ({'target_modules': 'x'} if set(c['target_modules']) - seven else {})"),
        ("refuses rsLoRA", "rsLoRA is another scale", "right | ({'use_rslora': 'x'} if c.get('use_rslora') else {})"),
        ("refuses a large alpha", "alpha is a factor", "right | ({'lora_alpha': 'x'} if c['lora_alpha'] > 2 * c['r'] else {})"),
        ("first field alone", "name every field that is refused", "dict(list(right.items())[:1])"),
        ("a list", "return a dict, field to reason, not list", "list(right)"),
        ("no reasons", "each field needs a reason", "dict.fromkeys(right, '')"),
        ("needs every field", "your code raised KeyError", "right if c['use_dora'] in (True, False) else {}"),
        ("a missing bias is set", "older folders have no 'bias'", "right | ({'bias': 'x'} if c.get('bias') != 'none' else {})"),
    ),
)  # fmt: skip

EXPORT += (
    Wrong(
        "takes a field out",
        "from labkit.serve.export import vllm_problems\ndef f(c, most):\n    found = vllm_problems(c, most)\n    c.pop('use_dora', None)\n    return found",
        "it changes the config",
    ),
)  # fmt: skip

BILL = _bank(
    "def f(base, n, tenants, width=2):\n"
    "    g, own = 2**30, width * n\n"
    "    right = (base / tenants + own) / g",
    (
        ("GB", "that is in GB", "right * g / 10**9"),
        ("bytes", "that is in bytes", "right * g"),
        ("MiB", "that is in MiB", "right * 1024"),
        ("MB", "that is in MB;", "right * g / 10**6"),
        ("base for each", "the base is there once for all", "(base + own) / g"),
        ("whole bill", "that is the whole bill", "(base + tenants * own) / g"),
        ("adapter divided", "an adapter belongs to one tenant", "(base + own) / tenants / g"),
        ("no base", "the base has to be held, too", "own / g"),
        ("no adapter", "the adapter is missing", "base / tenants / g"),
        ("always float32", "four bytes a number is what PEFT saves", "(base / tenants + 4 * n) / g"),
        ("always bfloat16", "two bytes a number is one case", "(base / tenants + 2 * n) / g"),
        ("one byte", "a number takes `width` of them", "(base / tenants + n) / g"),
        ("bits", "bytes, not bits", "(base / tenants + 8 * own) / g"),
        ("50 MB", "50 MB is what lessons say", "(base / tenants + 50e6) / g"),
        ("A and B twice", "are both counted in `numbers`", "(base / tenants + 2 * own) / g"),
        ("width on the base", "no width there", "(width * base / tenants + own) / g"),
        ("whole division", "divide once, at the end", "base // tenants // g + own / g"),
        ("a text", "the share must be a float, not str", "f'{right:.2f} GiB'"),
        ("rounded", "the share is", "round(right, 1)"),
    ),
)  # fmt: skip
BILL += tuple(
    Wrong(name, f"def f(base, n, tenants, {width}):\n    return (base / tenants + width * n) / 2**30", told)
    for name, width, told in (
        ("no default", "width", "two bytes are its default"),
        ("another default", "width=4", "`width` left out, which means 2"),
    )
)  # fmt: skip
