import pytest

from analysis.judge import judge
from tests.analysis.synthetic import Layout, Truth, write_run


@pytest.fixture
def judged(tmp_path):
    """A report of a synthetic run; each call makes another."""
    made = []

    def make(truth=None, layout=None, chosen=None, seed=1):
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(write_run(folder, chosen, truth or Truth(), layout or Layout(), seed))
        return judge(made[-1])

    make.runs = made
    return make
