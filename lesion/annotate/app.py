"""What the reading page is served: itself, the round, its pictures, and answers taken into the journal."""

from pathlib import Path
from typing import Any

import flask
from werkzeug.exceptions import HTTPException

from lesion.dataset import LABELS, SEQUENCES
from lesion.errors import UserError
from lesion.worklist import FOLDER, csv_file, journal, round_file
from lesion.worklist.journal import PAGE, Entry, Held
from lesion.worklist.round_file import Round

HOST = "127.0.0.1"
HERE = Path(__file__).parent / "page"
LIBRARIES = Path(__file__).parents[2] / "third_party"
FILES = {
    "page.js": HERE,
    "viewer.js": HERE,
    "page.css": HERE,
    "icon.svg": HERE,
    "preact.mjs": LIBRARIES / "preact",
    "htm.mjs": LIBRARIES / "htm",
}
KINDS = {"js": "text/javascript", "mjs": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",  # no browser keeps a patient's picture
}


class Refused(Exception):  # noqa: N818  # the page shows it and goes on
    """An answer that cannot hold: why, in one line."""


def make_app(workdir: Path, token: str) -> flask.Flask:
    """The pages and answers of the run in `workdir`, all below /`token`/.

    An answer is `POST answer {id, round, item, label, seen}`: `id` is made by the page, so that sending it again does
    not count twice; `seen` is the entry that the page last knew of this slice, so that two tabs never overwrite
    each other unknowingly. `POST undo {id, round, entry}` takes the entry back. Both return the state; 409 refuses.
    """
    app = flask.Flask(__name__, static_folder=None)
    app.config.update(TRUSTED_HOSTS=[HOST, "localhost"], MAX_CONTENT_LENGTH=2**14)
    pages = flask.Blueprint("pages", __name__, url_prefix=f"/{token}")

    @pages.get("/")
    def page() -> flask.Response:
        return _file(HERE / "page.html", "text/html")

    @pages.get("/<name>")
    def static(name: str) -> flask.Response:
        if name not in FILES:
            flask.abort(404)
        return _file(FILES[name] / name, KINDS[name.rpartition(".")[2]])

    @pages.get("/round")
    def round_() -> dict[str, Any]:
        this = round_file.newest(workdir)
        stacks = [{name: [s.position_mm for s in stack] for name, stack in one.items()} for one in this.stacks]
        items = [{"patient": item.patient, "place": item.place} for item in this.items]
        about: dict[str, Any] = {
            "sequence": this.sequence,
            "phantom": this.phantom,
            "command": this.command,
            "labels": list(LABELS),
            "sequences": list(SEQUENCES.items()),  # pairs, for JSON's objects have no order
        }
        return about | {"stacks": stacks, "items": items, "state": _state(workdir, this)}

    @pages.get("/state")
    def state() -> dict[str, Any]:
        return _state(workdir, round_file.newest(workdir))

    @pages.get("/picture/<int:index>/<int:patient>/<sequence>/<int:place>")
    def picture(index: int, patient: int, sequence: str, place: int) -> flask.Response:
        try:
            name = round_file.read(round_file.folder_of(workdir, index)).stacks[patient][sequence][place].picture
        except (UserError, LookupError):
            flask.abort(404)
        return _file(workdir / FOLDER / round_file.PICTURES / name, "image/png")

    @pages.post("/answer")
    def answer() -> Any:
        asked = _fields(id=str, round=int, item=int, label=str, seen=str)
        this = round_file.newest(workdir)
        outside = asked["round"] == this.number and asked["item"] >= len(this.items)
        if asked["label"] not in csv_file.ANSWERS or asked["item"] < 0 or outside:
            flask.abort(400)

        def decide(held: Held) -> list[Entry]:
            if asked["id"] in held.entries:
                return []
            _check_round(workdir, this, asked["round"])
            slice_ = this.items[asked["item"]].slice
            now = held.answer(this.number, slice_)
            if now and now.label == asked["label"]:
                return []
            if (now.id if now else "") != asked["seen"]:
                raise Refused(
                    f"this slice was changed elsewhere, it is {now.label if now else 'open'} now: answer again"
                )
            return [Entry(asked["id"], this.number, slice_, asked["label"], PAGE)]

        return _journalled(workdir, this, decide)

    @pages.post("/undo")
    def undo() -> Any:
        asked = _fields(id=str, round=int, entry=str)
        this = round_file.newest(workdir)

        def decide(held: Held) -> list[Entry]:
            if asked["id"] in held.entries:
                return []
            _check_round(workdir, this, asked["round"])
            if any(e.undoes == asked["entry"] for e in held.entries.values()):
                return []
            entry = held.entries.get(asked["entry"])
            if entry is None or held.answer(this.number, entry.slice) != entry:
                raise Refused("this answer was changed elsewhere: nothing to take back")
            return [Entry(asked["id"], this.number, entry.slice, "", PAGE, undoes=entry.id)]

        return _journalled(workdir, this, decide)

    @app.before_request
    def only_this_page() -> None:
        origin = flask.request.headers.get("Origin")
        if origin and origin != flask.request.host_url.rstrip("/"):
            flask.abort(403)

    @app.after_request
    def protect(response: flask.Response) -> flask.Response:
        response.headers.update(HEADERS)
        return response

    @app.errorhandler(Exception)
    def told(error: Exception) -> Any:
        if isinstance(error, HTTPException):
            return {"error": error.name}, error.code
        if isinstance(error, OSError):
            return {"error": f"not saved: {error.strerror}"}, 507
        return {"error": str(error)}, 500

    app.register_blueprint(pages)
    return app


def _file(path: Path, kind: str) -> flask.Response:
    return flask.Response(path.read_bytes(), mimetype=kind)


def _fields(**kinds: type) -> dict[str, Any]:
    """The request's JSON, which must have just these fields."""
    body = flask.request.get_json()
    if not isinstance(body, dict) or {k: type(v) for k, v in body.items()} != kinds:
        flask.abort(400)
    return body


def _check_round(workdir: Path, this: Round, index: int) -> None:
    """Inside the journal's lock: rounds are closed under it too."""
    if index != this.number or round_file.closed(workdir, index) is not None:
        raise Refused(f"round {index + 1} is closed, its answers are trained on: nothing was changed")


def _journalled(workdir: Path, this: Round, decide: Any) -> Any:
    try:
        journal.add(workdir / FOLDER, decide)
    except Refused as why:
        return {"error": str(why), "state": _state(workdir, round_file.newest(workdir))}, 409
    return _state(workdir, this)


def _state(workdir: Path, this: Round) -> dict[str, Any]:
    """What the page shows of the answers, in the order of the round's items."""
    held = journal.read(workdir / FOLDER)
    found = [held.answer(this.number, item.slice) for item in this.items]
    last = held.last(this.number)
    return {
        "round": this.number,
        "answers": [{"label": e.label, "entry": e.id} if e else {"label": "", "entry": ""} for e in found],
        "undo": last.id if last else "",
        "closed": round_file.closed(workdir, this.number) is not None,
        "over": (workdir / "metrics.json").exists(),
    }
