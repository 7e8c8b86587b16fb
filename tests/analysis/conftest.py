import pytest

from analysis.judge import judge
from analysis.render import drawing, runtime
from tests.analysis.synthetic import Layout, Truth, write_run


@pytest.fixture(scope="session")
def healthy(tmp_path_factory):
    """The report of the run in which nothing is wrong."""
    return judge(write_run(tmp_path_factory.mktemp("healthy")))


@pytest.fixture
def judged(tmp_path, healthy):
    """A report of a synthetic run; each call makes another."""
    made = []

    def make(truth=None, layout=None, chosen=None, seed=1):
        if (truth, layout, chosen, seed) == (None, None, None, 1):
            return healthy
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(write_run(folder, chosen, truth or Truth(), layout or Layout(), seed))
        return judge(made[-1])

    return make


@pytest.fixture
def light(monkeypatch):
    """The pictures' runtime is the library's own matter; here its place is taken by a line."""
    monkeypatch.setattr(runtime, "javascript", lambda: "window.vegaEmbed = undefined;")
    monkeypatch.setattr(drawing, "draw", lambda _spec: "<svg ></svg>")
