"""Keep one comment of a pull request up to date with a report: made the first time, changed from then on."""

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

MARKER = f"<!-- splitproof {os.environ.get('NAME') or 'report'} -->"
"""Where a workflow runs several experiments, each has a comment of its own, by its name."""

_FORBIDDEN = 403
_PER_PAGE = 100


def call(method: str, path: str, body: dict[str, str] | None = None) -> Any:
    """Ask GitHub's API, whose address Actions gives."""
    request = urllib.request.Request(  # noqa: S310 - the address is Actions' own
        os.environ.get("GITHUB_API_URL", "https://api.github.com") + path,
        data=None if body is None else json.dumps(body).encode(),
        method=method,
        headers={"Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}", "Accept": "application/vnd.github+json"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310
        return json.load(reply)


def ours(repository: str, number: str) -> int | None:
    """The comment that an earlier run left, page by page."""
    page = 1
    while True:
        found = call("GET", f"/repos/{repository}/issues/{number}/comments?per_page={_PER_PAGE}&page={page}")
        for comment in found:
            if comment["body"].startswith(MARKER):
                return int(comment["id"])
        if len(found) < _PER_PAGE:
            return None
        page += 1


def main() -> None:
    """Write the comment; a pull request from a fork has a token that may not, which is no fault of the report's."""
    try:
        write()
    except urllib.error.HTTPError as error:
        if error.code != _FORBIDDEN:
            raise
        print("::notice::No comment: this token may not write to the pull request. The report is in the summary.")


def write() -> None:
    """Make the comment, or change the one that is there."""
    repository, number = os.environ["GITHUB_REPOSITORY"], os.environ["PULL_REQUEST"]
    body = {"body": f"{MARKER}\n{Path(os.environ['REPORT']).read_text(encoding='utf-8')}"}
    known = ours(repository, number)
    if known is None:
        call("POST", f"/repos/{repository}/issues/{number}/comments", body)
    else:
        call("PATCH", f"/repos/{repository}/issues/comments/{known}", body)


if __name__ == "__main__":
    main()
