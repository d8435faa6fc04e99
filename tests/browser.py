"""A real JupyterLab in a real Chromium, for the tests that look at notebooks as learners do.

    with server(tmp_path) as place, browser() as chromium:
        lab = Lab(chromium, place)
        lab.open("00_start_here.ipynb")
        lab.run_all(seconds=60)

Notebooks, settings, progress and runs all live under the folder given to `server`, so nothing in
the checkout or in the home folder changes.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
SERVER = (
    "lab --no-browser --expose-app-in-browser --ServerApp.port_retries=0 "
    "--IdentityProvider.token= --allow-root"
).split()
QUIET = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
CELLS = ".jp-NotebookPanel .jp-Notebook .jp-Cell"
ELSEWHERE = re.compile(r"https?://(?!127\.0\.0\.1)")
START, READY = 60, 60_000  # seconds until the server answers; milliseconds until a kernel is idle
NO_PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="20"/>'
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}

# A kernel is attached, connected and idle; the badge in the toolbar says so too early.
IDLE = """() => {
  const session = window.jupyterapp?.shell?.currentWidget?.sessionContext;
  const kernel = session?.session?.kernel;
  return session?.isReady && kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
# A command that asks something in a dialog never ends, so each one races against a clock.
COMMAND = """([name, seconds]) => Promise.race([
  jupyterapp.commands.execute(name).then(() => ''),
  new Promise(done => setTimeout(() => done(`${name}: not done after ${seconds} s`),
                                 1000 * seconds)),
])"""
KERNEL = """async code => {
  const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const done = await kernel.requestExecute({code, store_history: false}).done;
  if (done.content.status !== 'ok') throw new Error(`${code}: ${done.content.evalue}`);
}"""
THEMED = "light => document.body.dataset.jpThemeLight === String(light)"
# A cell that comes into view may grow, and move the one that was scrolled to.
SCROLL = """async cell => {
  for (let turn = 0; turn < 10; turn++) {
    cell.scrollIntoView({block: 'start'});
    await new Promise(requestAnimationFrame);
  }
}"""
# Every piece of text under the elements, with its contrast by WCAG 2.2 against what lies behind it.
CONTRAST = """roots => {
  const rgba = text => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return text.startsWith('color(srgb') ? [255 * r, 255 * g, 255 * b, a] : [r, g, b, a];
  };
  const over = ([r, g, b, a], under) =>
    [r, g, b].map((part, i) => part * a + under[i] * (1 - a));
  const light = colour => {
    const [r, g, b] = colour.map(part => part / 255)
      .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => element === null ? [255, 255, 255]
    : over(rgba(getComputedStyle(element).backgroundColor), ground(element.parentElement));
  const opacity = element => element === null ? 1
    : Number(getComputedStyle(element).opacity) * opacity(element.parentElement);
  const measured = [];
  for (const root of roots) for (const element of [root, ...root.querySelectorAll('*')]) {
    const own = [...element.childNodes].filter(node => node.nodeType === 3)
      .map(node => node.data.trim()).join(' ').trim();
    if (!own || !element.getClientRects().length) continue;
    const style = getComputedStyle(element), behind = ground(element);
    const [r, g, b, a] = rgba(element instanceof SVGElement ? style.fill : style.color);
    const pair = [over([r, g, b, a * opacity(element)], behind), behind].map(light);
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    measured.push([ratio, own]);
  }
  return measured;
}"""


def find_chromium():
    """The path of an installed Chromium or Chrome, or None; LABKIT_CHROMIUM overrules."""
    named = os.environ.get("LABKIT_CHROMIUM")
    there = [named] if named else [*map(shutil.which, NAMES), MAC]
    return next((path for path in there if path and Path(path).is_file()), None)


@dataclass(frozen=True)
class Place:
    """A running server and its folders."""

    url: str
    notebooks: Path  # copies
    home: Path  # LABKIT_HOME


@contextlib.contextmanager
def server(tmp):
    """A JupyterLab server on a free port, with a copy of the notebooks; ended with its group."""
    place = Place(f"http://127.0.0.1:{_free_port()}", tmp / "notebooks", tmp / "home")
    shutil.copytree(
        NOTEBOOKS, place.notebooks, ignore=shutil.ignore_patterns("solutions", "source", ".*")
    )
    log = tmp / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyter", *SERVER),
                f"--ServerApp.port={place.url.rpartition(':')[2]}",
                f"--ServerApp.root_dir={place.notebooks}",
            ],
            env=_environment(tmp, place),
            cwd=tmp,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for(process, place.url, log)
        yield place
    finally:
        _end(process)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _environment(tmp, place):
    """The environment of the server: nothing of the user's own set-up reaches it."""
    folders = {
        "JUPYTER_CONFIG_DIR": tmp / "config",
        "JUPYTER_DATA_DIR": tmp / "data",
        "JUPYTER_RUNTIME_DIR": tmp / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": tmp / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": tmp / "workspaces",
        "IPYTHONDIR": tmp / "ipython",
        "LABKIT_HOME": place.home,
        "LABKIT_RUNS": tmp / "runs",
        "LABKIT_CACHE": tmp / "cache",
    }
    for folder in folders.values():
        folder.mkdir(parents=True)
    quiet = tmp / "settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text(json.dumps(QUIET), encoding="utf-8")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "LABKIT_"))}
    ours = {"LABKIT_MODEL": "tiny", "LABKIT_QUICK": "1", "OMP_NUM_THREADS": "1"}
    return kept | {name: str(folder) for name, folder in folders.items()} | ours


def _wait_for(process, url, log):
    end = time.monotonic() + START
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/api/status", timeout=5):
            return
        time.sleep(0.1)
    said = log.read_text(encoding="utf-8", errors="replace")
    raise RuntimeError(f"JupyterLab ended, or said nothing for {START} s:\n{said}")


def _end(process):
    """SIGTERM lets the server shut its kernels down; what is left of its group then goes too."""
    for how, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)


@contextlib.contextmanager
def browser():
    """Chromium under Playwright, as installed on this machine."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


@dataclass
class Lab:
    """One notebook in one browser page.

    `console` collects the page's errors as they come, `asked` the addresses of other hosts.
    """

    browser: object
    place: Place
    console: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    page: object = None

    def open(self, notebook):
        """Show a notebook and wait until its kernel can run cells."""
        if self.page is None:
            self.page = self.browser.new_page(viewport={"width": 1280, "height": 900})
            self.page.route(ELSEWHERE, self._away)
            self.page.on("console", self._said)
            self.page.on("pageerror", lambda error: self.console.append(str(error)))
        workspace = Path(notebook).stem  # of its own, or two pages would fight over one
        self.page.goto(f"{self.place.url}/lab/workspaces/{workspace}/tree/{notebook}")
        self.page.wait_for_function(IDLE, timeout=READY)

    def _away(self, route):
        """Other hosts are never asked: with or without a network a test sees the same."""
        self.asked.append(route.request.url)
        route.fulfill(status=200, content_type="image/svg+xml", body=NO_PICTURE)

    def _said(self, message):
        if message.type == "error":
            self.console.append(f"{message.text} ({message.location.get('url', '')})")

    def command(self, name, seconds=30):
        """Run a command of JupyterLab to its end.

        Raises TimeoutError where it takes longer.
        """
        if late := self.page.evaluate(COMMAND, [name, seconds]):
            raise TimeoutError(late)

    def run_all(self, seconds):
        """Run every cell; an error in one stops the rest, as it does for a learner."""
        self.command("notebook:run-all-cells", seconds)

    def in_kernel(self, code):
        """Run code in the kernel behind the learner's back."""
        self.page.evaluate(KERNEL, code)

    def theme(self, name):
        """Switch to "light" or "dark"."""
        change = "theme => jupyterapp.commands.execute('apputils:change-theme', {theme})"
        self.page.evaluate(change, THEMES[name])
        self.page.wait_for_function(THEMED, arg=name == "light", timeout=READY)

    def cells(self):
        """The cells with their outputs, as a saved notebook would hold them."""
        return self.page.evaluate(
            "() => jupyterapp.shell.currentWidget.content.model.toJSON().cells"
        )

    def find(self, text):
        """The index of the only code cell whose source holds `text`."""
        found = [
            number
            for number, cell in enumerate(self.cells())
            if cell["cell_type"] == "code" and text in "".join(cell["source"])
        ]
        assert len(found) == 1, f"{text!r} stands in the code cells {found}"
        return found[0]

    def cell(self, text):
        """The element of the only code cell whose source holds `text`."""
        return self.page.locator(CELLS).nth(self.find(text))

    def run(self, text, seconds=30):
        """Run the only code cell whose source holds `text`; its element, with no old output."""
        select = "i => { jupyterapp.shell.currentWidget.content.activeCellIndex = i }"
        self.page.evaluate(select, self.find(text))
        self.command("notebook:clear-cell-output")
        self.command("notebook:run-cell", seconds)
        return self.cell(text)

    def write(self, text, source):
        """Put `source` in place of the cell that holds `text`, as typing would."""
        editor = self.cell(text).locator(".cm-content")
        editor.scroll_into_view_if_needed()
        editor.click()
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.insert_text(source)

    def errors(self):
        """Errors in the outputs, each with the number of its cell; and cells that never ran."""
        found = []
        for number, cell in enumerate(self.cells()):
            if cell["cell_type"] == "code" and cell["execution_count"] is None:
                found.append(f"cell {number} did not run")
            for output in cell.get("outputs", ()):
                if output["output_type"] == "error":
                    found.append(f"cell {number}: {output['ename']}: {output['evalue']}")
        return found

    def noise(self):
        """What the outputs hold of stderr, each with the number of its cell."""
        return [
            f"cell {number}: {''.join(output['text'])}"
            for number, cell in enumerate(self.cells())
            for output in cell.get("outputs", ())
            if output["output_type"] == "stream" and output["name"] == "stderr"
        ]

    def contrast(self, selector):
        """(ratio, text) of every piece of text under the elements that the selector names."""
        return [tuple(pair) for pair in self.page.locator(selector).evaluate_all(CONTRAST)]

    def screenshot(self, path, text=None):
        """A picture of the window, scrolled to a code cell, or to the top."""
        cell = self.page.locator(CELLS).first if text is None else self.cell(text)
        cell.evaluate(SCROLL)
        self.page.mouse.move(0, 0)  # whatever lies under the mouse would be highlighted
        self.page.screenshot(path=path)
