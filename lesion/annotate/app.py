"""The Flask app behind the reading page: serves its files, the round and its pictures, and takes answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flask
from werkzeug.exceptions import Forbidden, HTTPException, NotFound, SecurityError

from lesion import files
from lesion.dataset import SEQUENCES
from lesion.errors import UserError
from lesion.worklist import FOLDER, NO_CLASS, journal, round_file
from lesion.worklist.journal import PAGE, Entry, JournalState
from lesion.worklist.round_file import Round

HOST = "127.0.0.1"
READER = "reader_1"  # whoever has the address
MAX_BYTES = 2**14  # of a message
PAGE_FOLDER = Path(__file__).parent / "page"
THIRD_PARTY = Path(__file__).parents[2] / "third_party"
FILES = {
    "page.js": PAGE_FOLDER,
    "viewer.js": PAGE_FOLDER,
    "page.css": PAGE_FOLDER,
    "icon.svg": PAGE_FOLDER,
    "preact.mjs": THIRD_PARTY / "preact",
    "htm.mjs": THIRD_PARTY / "htm",
}
MEDIA_TYPES = {"js": "text/javascript", "mjs": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",  # no browser keeps a patient's picture
}
# What is told of a request that cannot be, to the person at the browser.
_MEND = "Open the address that launch.annotate prints, whole, on the machine where it runs or through ssh -L"
MISTAKES: dict[type[Exception], str] = {
    NotFound: f"There is no reading page at this address. {_MEND}.",
    SecurityError: f"The reading page answers to {HOST} only, not to another name or through another server. {_MEND}.",
    Forbidden: f"Another page asked for this: refused. {_MEND}.",
}


class Refused(Exception):  # noqa: N818  # not an error: the page shows it and goes on
    """An answer or an undo is refused; the message is the reason, in one line."""


def make_app(workdir: Path, token: str) -> flask.Flask:
    """Builds the app that serves the run in `workdir`, all of it below /`token`/.

    An answer is `POST answer {id, round, item, picture, label, seen, milliseconds}`: `id` is made by the page, so that
    a message that is sent again does not count twice; `picture` is the digest of the slice that was on the screen, so
    that an answer is never one about another; `seen` is the entry that the page last knew for this slice, so that two
    tabs never overwrite each other unknowingly. `POST undo {id, round, entry}` takes the entry back. Both return the
    state; 409 means that the message was refused.
    """
    app = flask.Flask(__name__, static_folder=None)
    app.config.update(TRUSTED_HOSTS=[HOST, "localhost"], MAX_CONTENT_LENGTH=MAX_BYTES)
    pages = flask.Blueprint("pages", __name__, url_prefix=f"/{token}")

    @pages.get("/")
    def page() -> flask.Response:
        return _file(PAGE_FOLDER / "page.html", "text/html")

    @pages.get("/<name>")
    def page_file(name: str) -> flask.Response:
        if name not in FILES:
            flask.abort(404)
        return _file(FILES[name] / name, MEDIA_TYPES[name.rpartition(".")[2]])

    @pages.get("/round")
    def newest_round() -> dict[str, Any]:
        round_ = round_file.newest(workdir)
        return {
            "sequence": round_.sequence,
            "phantom": round_.phantom,
            "command": round_.command,
            "labels": list(round_.classes),
            "sequences": list(SEQUENCES.items()),  # pairs: the objects of JSON have no order
            "stacks": [
                {sequence: [slice_.position_mm for slice_ in stack] for sequence, stack in patient.items()}
                for patient in round_.stacks
            ],
            "items": [{"patient": item.patient, "place": item.place, "picture": item.digest} for item in round_.items],
            "fit": round_.fit,
            "again": round_.again,
            "said": list(round_.said) or [{} for _ in round_.patients],
            "contradictions": round_.contradictions,
            "state": _state(workdir, round_),
        }

    @pages.get("/state")
    def state() -> dict[str, Any]:
        return _state(workdir, round_file.newest(workdir))

    @pages.get("/picture/<int:number>/<int:patient>/<sequence>/<int:place>")
    def picture(number: int, patient: int, sequence: str, place: int) -> flask.Response:
        try:
            name = round_file.read(round_file.folder_of(workdir, number)).stacks[patient][sequence][place].picture
            return _file(workdir / FOLDER / round_file.PICTURES / name, "image/png")
        except (UserError, LookupError, FileNotFoundError):
            flask.abort(404)

    @pages.post("/answer")
    def answer() -> Any:
        message = _message(id=str, round=int, item=int, picture=str, label=str, seen=str, milliseconds=int)
        round_ = round_file.newest(workdir)
        outside = message["round"] == round_.number and message["item"] >= len(round_.items)
        unknown = message["label"] not in (*round_.classes, *NO_CLASS)
        if unknown or outside or message["item"] < 0 or message["milliseconds"] < 0:
            flask.abort(400)

        def decide(state: JournalState) -> list[Entry]:
            item = round_.items[message["item"]]
            if message["picture"] != item.digest:
                raise Refused("this answer is about a picture that is not asked about any more: nothing was changed")
            slice_ = item.slice
            current = state.answer(round_.number, slice_)
            if current and current.label == message["label"]:
                return []
            if (current.id if current else "") != message["seen"]:
                label = current.label if current else "open"
                raise Refused(f"this slice was changed elsewhere, it is {label} now: answer again")
            made = Entry(message["id"], round_.number, slice_, message["label"], PAGE)
            return [made._replace(reader=READER, seconds=message["milliseconds"] / 1000)]

        return _add(workdir, round_, message, decide)

    @pages.post("/undo")
    def undo() -> Any:
        message = _message(id=str, round=int, entry=str)
        round_ = round_file.newest(workdir)

        def decide(state: JournalState) -> list[Entry]:
            if any(entry.undoes == message["entry"] for entry in state.entries.values()):
                return []
            entry = state.entries.get(message["entry"])
            if entry is None or state.answer(round_.number, entry.slice) != entry:
                raise Refused("this answer was changed elsewhere: nothing to take back")
            return [Entry(message["id"], round_.number, entry.slice, "", PAGE, undoes=entry.id, reader=READER)]

        return _add(workdir, round_, message, decide)

    @app.before_request
    def refuse_other_origins() -> None:
        origin = flask.request.headers.get("Origin")
        if origin and origin != flask.request.host_url.rstrip("/"):
            flask.abort(403)

    @app.after_request
    def add_headers(response: flask.Response) -> flask.Response:
        response.headers.update(HEADERS)
        return response

    @app.errorhandler(Exception)
    def report_error(error: Exception) -> Any:
        if isinstance(error, HTTPException):
            sentence = MISTAKES.get(type(error), error.description)
            if "text/html" in flask.request.headers.get("Accept", ""):  # a person, not the page
                return flask.Response(f"<!doctype html>\n<p>{sentence}</p>\n", error.code, mimetype="text/html")
            return {"error": sentence}, error.code
        if isinstance(error, OSError):
            return {"error": f"not saved: {error.strerror}"}, 507
        return {"error": str(error)}, 500

    app.register_blueprint(pages)
    return app


def _file(path: Path, media_type: str) -> flask.Response:
    return flask.Response(path.read_bytes(), mimetype=media_type)


def _message(**types: type) -> dict[str, Any]:
    """Returns the request's JSON; answers 400 unless it has exactly these fields, of these types."""
    body = flask.request.get_json()
    if not isinstance(body, dict) or {name: type(value) for name, value in body.items()} != types:
        flask.abort(400)
    return body


def _add(workdir: Path, round_: Round, message: dict[str, Any], decide: Callable[[JournalState], list[Entry]]) -> Any:
    """Adds the entries that `decide` returns to the journal; returns the state, or 409 and why they were refused."""

    def decide_once(state: JournalState) -> list[Entry]:
        if message["id"] in state.entries:  # sent again, because the first reply was lost
            return []
        number = message["round"]
        if number != round_.number or round_file.closed_entries(workdir, number) is not None:
            which = round_.title if number == round_.number else "the round of this answer"
            raise Refused(f"{which} is closed, its answers are trained on: nothing was changed")
        return decide(state)

    try:
        journal.add(workdir / FOLDER, decide_once)
    except Refused as refusal:
        return {"error": str(refusal), "state": _state(workdir, round_file.newest(workdir))}, 409
    return _state(workdir, round_)


def _state(workdir: Path, round_: Round) -> dict[str, Any]:
    """Returns the answers in the order of the round's items, and the rest of the state that the page shows."""
    state = journal.read(workdir / FOLDER)
    entries = [state.answer(round_.number, item.slice) for item in round_.items]
    last = state.last_page_answer(round_.number)
    path = round_file.folder_of(workdir, round_.number) / round_file.FILE
    return {
        "round": round_.number,
        "questions": files.sha256(path)[:16],  # other ones may come under the same number, from a run begun anew
        "answers": [{"label": e.label, "entry": e.id} if e else {"label": "", "entry": ""} for e in entries],
        "undo": last.id if last else "",
        "closed": round_file.closed_entries(workdir, round_.number) is not None,
        "over": (workdir / "metrics.json").exists(),
    }
