"""The endpoint: one base, an adapter with each request; held, refused, and closed without loss."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from served import stock, tiny

from labkit import data, evaluate
from labkit.serve import app, load
from labkit.serve.app import serving
from labkit.serve.bank import Bank
from labkit.serve.engine import Busy, Engine, Request
from labkit.serve.load import load_test
from labkit.serve.shelf import Shelf

RANKS = {"ada": 4, "bob": 8, "eve": 2}
NAMES = [*RANKS, None]
ASKED = [e.prompt for e in data.examples("regression")[::80]]


@pytest.fixture(scope="module")
def stocked(tmp_path_factory):
    root = tmp_path_factory.mktemp("shelf")
    return root, stock(root, tiny(), **RANKS)


def engine(root, cls=Engine, slots=4, **more):
    base = tiny()
    return cls(Shelf(root, base), Bank(tiny().model, slots, 8), **more)


@pytest.fixture(scope="module")
def url(stocked):
    with serving(engine(stocked[0]), body_limit=2000) as address:
        yield address


def body(**more):
    return {"prompt": ASKED[0], "max_new_tokens": 2} | more


def test_each_request_is_answered_by_its_adapter_whoever_shares_its_batch(url, stocked):
    requests = [body(prompt=p, adapter=n, max_new_tokens=6) for p in ASKED for n in NAMES]
    found = load_test(url, requests, at_once=len(requests)).answers
    models = {name: base.model for name, base in stocked[1].items()} | {None: tiny().model}
    assert max(a.body["batch"] for a in found) > 4
    texts = {}
    for name, model in models.items():
        wanted = evaluate.answers(model, tiny().tokenizer, ASKED, max_new_tokens=6)
        texts[name] = [a.body["text"] for a in found if a.body["adapter"] == name]
        assert texts[name] == wanted, name
    assert len(set(map(tuple, texts.values()))) == 4  # else a wrong adapter would not show


def test_hundreds_of_requests_are_held_and_none_is_lost(stocked):
    requests = [body(adapter=NAMES[i % 4], max_new_tokens=1 + i % 2) for i in range(200)]
    with serving(engine(stocked[0], batch=64), seconds=150) as address:
        found = load_test(address, requests, at_once=200, patience=150)
    assert found.statuses == {200: 200}
    assert found.lost == 0
    for answer, asked in zip(found.answers, requests, strict=True):
        assert answer.body["adapter"] == asked["adapter"]
        assert answer.body["tokens"] == asked["max_new_tokens"]
    assert 0 < found.p50 <= found.p99 <= found.seconds
    assert "200 times 200" in str(found)


def test_more_adapters_than_slots_take_turns(stocked):
    requests = [body(prompt=ASKED[2], adapter=name, max_new_tokens=4) for name in NAMES * 4]
    with serving(engine(stocked[0])) as address:
        wanted = [a.body["text"] for a in load_test(address, requests).answers]
    with serving(engine(stocked[0], slots=1)) as address:
        found = load_test(address, requests).answers
    assert [a.body["text"] for a in found] == wanted


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"{", 400, "the body is no JSON (JSONDecodeError)"),
        (b"\xff\xfe{", 400, "the body is no JSON"),
        (b"[" * 1999, 400, "the body is no JSON (RecursionError)"),
        (b"[1]", 400, "has to be a JSON object"),
        (b"{}", 400, "prompt has to be a text"),
        (b'{"prompt": " "}', 400, "prompt has to be a text"),
        (b'{"prompt": 1}', 400, "prompt has to be a text"),
        (b'{"prompt": "\\ud800"}', 400, "surrogates not allowed"),
        (b'{"prompt": "a", "temperature": 1}', 400, "'temperature' is no field"),
        (b'{"prompt": "a", "adapter": 1}', 400, "adapter has to be a name"),
        (b'{"prompt": "a", "max_new_tokens": 0}', 400, "whole number, 1 to 256"),
        (b'{"prompt": "a", "max_new_tokens": 257}', 400, "whole number, 1 to 256"),
        (b'{"prompt": "a", "max_new_tokens": true}', 400, "whole number, 1 to 256"),
        (b'{"prompt": "a", "max_new_tokens": NaN}', 400, "whole number, 1 to 256"),
        (b'{"prompt": "a", "adapter": "zed"}', 404, "there is no adapter 'zed'"),
        (b'{"prompt": "a", "adapter": "../ada"}', 404, "is no name of an adapter"),
        (b'{"prompt": "a", "adapter": ""}', 404, "is no name of an adapter"),
        (b'{"prompt": "' + b"a" * 2000 + b'"}', 413, "may have 2000 bytes"),
        (b"a" * 5_000_000, 413, "may have 2000 bytes"),
    ],
)
def test_a_wrong_request_is_refused_with_a_reason(url, content, status, said):
    answer = httpx.post(f"{url}/generate", content=content)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_a_body_that_says_no_length_is_counted_as_it_comes(url):
    answer = httpx.post(f"{url}/generate", content=(b"a" * 500 for _ in range(9)))
    assert answer.status_code == 413


def test_a_prompt_longer_than_the_context_is_refused(stocked):
    with serving(engine(stocked[0])) as address:
        answer = httpx.post(f"{address}/generate", json=body(prompt="word " * 3000))
        assert answer.status_code == 400
        assert "the model has room for 1024" in answer.json()["error"]


def test_the_rest_of_the_address_space_is_empty(url):
    assert httpx.get(f"{url}/adapters").json()["adapters"] == ["ada", "bob", "eve"]
    assert httpx.get(f"{url}/../card.json").status_code == 404
    assert httpx.get(f"{url}/generate").status_code == 405
    assert url.startswith("http://127.0.0.1:")


class Slow(Engine):
    """Takes its time."""

    pause = 0.3

    def _answer(self, requests):
        time.sleep(self.pause)
        return super()._answer(requests)


def test_one_request_more_than_may_wait_is_told_to_come_back(stocked):
    class Slower(Slow):
        pause = 1.0

    with serving(engine(stocked[0], Slower, waiting=1, batch=1)) as address:
        found = load_test(address, [body()] * 12, at_once=12)
        late = load_test(address, [body()])
    refused = [a for a in found.answers if a.status == 503]
    assert len(refused) >= 6
    assert found.statuses[200] + len(refused) == 12
    assert all(a.body["error"] == "no room: 1 waiting already" for a in refused)
    assert min(a.seconds for a in refused) < max(found.latencies)  # at once, not after a wait
    assert late.statuses == {200: 1}  # and then they are taken again


def test_a_refusal_says_when_to_come_back(stocked):
    with serving(engine(stocked[0], waiting=0)) as address:
        answer = httpx.post(f"{address}/generate", json=body())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_an_answer_that_does_not_come_in_time_is_given_up(stocked):
    with serving(engine(stocked[0], Slow, batch=1), seconds=0.15) as address:
        answer = httpx.post(f"{address}/generate", json=body())
    assert answer.status_code == 504
    assert answer.json()["error"] == "no answer within 0.15 s"


def test_a_body_that_does_not_come_in_time_is_given_up(stocked):
    def drip():
        yield b'{"prompt"'
        time.sleep(0.4)
        yield b': "a"}'

    with serving(engine(stocked[0]), seconds=0.15) as address:
        assert httpx.post(f"{address}/generate", content=drip()).status_code == 408


def test_at_the_end_requests_in_flight_are_answered_and_no_more_are_taken(stocked):
    with ThreadPoolExecutor(1) as aside:
        with serving(engine(stocked[0], Slow, batch=4)) as address:
            asked = aside.submit(load_test, address, [body()] * 12, 12)
            time.sleep(0.25)  # the first batch is at work, the others wait
            assert not asked.done()
        found = asked.result()
    assert found.statuses == {200: 12}
    with pytest.raises(httpx.ConnectError):
        httpx.post(f"{address}/generate", json=body())


def test_an_engine_that_stops_answers_those_that_wait(stocked):
    async def run():
        one, asked = engine(stocked[0], batch=2), Request(ASKED[0], None, 1)
        await one.start()
        waiting = [asyncio.create_task(one.answer(asked)) for _ in range(6)]
        await asyncio.sleep(0)  # they are in, and none is answered
        await one.stop()
        with pytest.raises(Busy, match="takes no more"):
            await one.answer(asked)
        return [task.result().batch for task in waiting]

    assert asyncio.run(asyncio.wait_for(run(), 30)) == [2] * 6


def test_a_damaged_adapter_fails_alone(stocked, tmp_path):
    import shutil

    for name in ("ada", "bob"):
        shutil.copytree(stocked[0] / name, tmp_path / name)
    (tmp_path / "bob" / "adapter_model.safetensors").write_bytes(b"no")
    other = tmp_path / "other"
    shutil.copytree(stocked[0] / "ada", other)
    said = json.loads((other / "card.json").read_text())
    (other / "card.json").write_text(json.dumps(said | {"base_sha256": "0" * 64}))
    with serving(engine(tmp_path)) as address:
        names = ["ada", "bob", "other", None]
        found = load_test(address, [body(adapter=n) for n in names]).answers
        again = load_test(address, [body(adapter="ada")])
    assert [a.status for a in found] == [200, 500, 500, 200]
    assert "is damaged or cut off" in found[1].body["error"]
    assert "load the base it names" in found[2].body["error"]
    assert again.statuses == {200: 1}


def test_a_model_that_fails_is_said_and_the_next_request_is_answered(stocked):
    class Once(Engine):
        failed = False

        def _generate(self, requests):
            if not self.failed:
                self.failed = True
                raise ValueError("no memory")
            return super()._generate(requests)

    with serving(engine(stocked[0], Once)) as address:
        first, second = (load_test(address, [body()]).answers[0] for _ in range(2))
    assert (first.status, first.body["error"]) == (500, "the model failed: ValueError")
    assert second.status == 200


def test_a_server_that_cannot_begin_says_so(stocked):
    class Broken(Engine):
        async def start(self):
            raise OSError("no")

    with pytest.raises(app.ServerError, match="did not begin"), serving(engine(stocked[0], Broken)):
        pass


def test_a_request_without_any_answer_is_lost():
    found = load_test("http://127.0.0.1:9", [body()] * 3)
    assert (found.lost, found.statuses) == (3, {0: 3})
    with pytest.raises(ValueError, match="no percentile"):
        _ = found.p50
    with pytest.raises(ValueError, match="no requests"):
        load_test("http://127.0.0.1:9", [])


def test_a_percentile_is_a_value_that_was_measured():
    values = [float(i) for i in range(1, 101)]
    assert [load.percentile(values, s) for s in (0.5, 0.99, 1.0, 0.0)] == [50, 99, 100, 1]
    assert load.percentile([3.0], 0.99) == 3
