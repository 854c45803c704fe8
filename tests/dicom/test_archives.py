import gzip
import io
import os
import stat
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion.dicom import archives

BYTES = os.urandom(3000)


def pack(path, members):
    """A zip or tar of [(name, bytes)], as the path's ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in dict(members).items():
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        return path
    with tarfile.open(path, f"w:{path.suffix[1:].lower().replace('tgz', 'gz').replace('tar', '')}") as archive:
        for name, content in members:
            add(archive, name, content)
    return path


def add(archive, name, content=b"", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(content))


def packed(ending, members):
    """The bytes of an archive."""
    with tempfile.TemporaryDirectory() as folder:
        return pack(Path(folder, f"x{ending}"), members).read_bytes()


def unpack(folder, leave_out=()):
    return archives.unpack(folder, folder / "unpacked", leave_out)


def tree(folder):
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and ".stamps" not in str(path)
    }


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".TAR.GZ"])
def test_every_kind_is_unpacked_once_again_when_it_changes_and_gone_with_its_archive(tmp_path, ending):
    archive = pack(tmp_path / "a" / f"x{ending}", [("d/IM1", BYTES), ("IM2", b"2")])
    place = tmp_path / "unpacked" / "a" / archive.name
    assert unpack(tmp_path) == [] and (place / "d" / "IM1").read_bytes() == BYTES and (place / "IM2").exists()
    (place / "IM2").unlink()
    assert unpack(tmp_path) == [] and not (place / "IM2").exists()  # not done again
    pack(archive, [("IM3", BYTES + b"3")])
    assert unpack(tmp_path) == [] and tree(place) == {"IM3"}
    archive.unlink()
    assert unpack(tmp_path) == [] and tree(tmp_path) == set()


def test_single_files_are_unpacked_volumes_and_folders_to_leave_out_are_not(tmp_path):
    for name in ("IM1.dcm.gz", "v.nii.gz", ".hidden.gz", "out/IM2.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(gzip.compress(b"content"))
    assert unpack(tmp_path, leave_out=[tmp_path / "out"]) == []
    assert tree(tmp_path / "unpacked") == {"IM1.dcm.gz/IM1.dcm"}


def test_archives_in_archives_take_their_places_down_to_a_depth(tmp_path):
    content, name = [("IM", BYTES)], "0.zip"
    for depth in range(3, -1, -1):
        name = f"{depth}.zip"
        content = [(f"{depth}.zip", packed(".zip", content))]
    (tmp_path / name).write_bytes(content[0][1])
    refused = "0.zip/1.zip/2.zip/3.zip"
    for _ in range(2):  # the second time from the stamp
        assert [archive for archive, _ in unpack(tmp_path)] == [refused]
    assert tree(tmp_path / "unpacked") == {refused}


def link(kind):
    def make(path):
        with tarfile.open(path, "w") as archive:
            add(archive, "IM1", BYTES)
            add(archive, "out", type=kind, linkname="/etc", devmajor=1, devminor=3)

    return make


def zip_link(path):
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("out")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc")


def long_header(kind):
    def make(path):
        header = tarfile.TarInfo("IM1")
        header.type, header.size = kind, 2**21
        path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + b"a" * 2**21))

    return make


def encrypted(path):
    content = bytearray(pack(path, [("IM", BYTES)]).read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(pack(path, [("IM1", BYTES), ("IM2", BYTES[::-1])]).read_bytes()[:4000])


def of(*members):
    return lambda path: pack(path, members)


REFUSED = {
    "bomb.zip": (of(("IM", bytes(10**6))), "more than 20 times its size"),
    "bomb.tgz": (of(("IM", bytes(10**6))), "more than 20 times its size"),
    "bomb.gz": (lambda path: path.write_bytes(gzip.compress(bytes(10**6))), "more than 20 times its size"),
    "empty.tgz": (of(*((str(i), b"") for i in range(3000))), "more than 20 times its size"),
    "name.tgz": (long_header(tarfile.GNUTYPE_LONGNAME), "a header of 2097152 bytes"),
    "pax.tgz": (long_header(tarfile.XHDTYPE), "a header of 2097152 bytes"),
    "locked.zip": (encrypted, "encrypted"),
    "link.tar": (link(tarfile.SYMTYPE), "link or a device"),
    "hard.tar": (link(tarfile.LNKTYPE), "link or a device"),
    "pipe.tar": (link(tarfile.FIFOTYPE), "link or a device"),
    "device.tar": (link(tarfile.CHRTYPE), "link or a device"),
    "link.zip": (zip_link, "link or a device"),
    "up.zip": (of(("IM", BYTES), ("a/../../up", b"")), "leads out"),
    "up.tar": (of(("../up", BYTES)), "leads out"),
    "root.tar": (of(("/tmp/up", BYTES)), "leads out"),
    "windows.zip": (of(("..\\up", BYTES)), "leads out"),
    "drive.zip": (of(("C:\\up", BYTES)), "leads out"),
    "cut.zip": (cut, "broken"),
    "cut.tar": (cut, "broken"),
    "cut.tgz": (cut, "broken"),
    "both.tar": (of(("a", BYTES), ("a/b", BYTES)), "broken"),
    "x.7z": (lambda path: path.write_bytes(b"7z"), "not read"),
}


def test_what_is_refused_leaves_nothing_and_the_rest_goes_on(tmp_path):
    for name, (make, _) in REFUSED.items():
        make(tmp_path / name)
    pack(tmp_path / "good.zip", [("IM", BYTES)])
    unread = dict(unpack(tmp_path))
    assert unread.keys() == REFUSED.keys()
    for name, (_, reason) in REFUSED.items():
        assert reason in unread[name] and "\n" not in unread[name], (name, unread[name])
    assert tree(tmp_path / "unpacked") == {"good.zip/IM"}


def test_the_larger_limit_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 2**10)
    pack(tmp_path / "x.tar", [("IM", BYTES)])
    assert "more than 0 GiB" in unpack(tmp_path)[0][1]


NAMES = st.lists(
    st.one_of(st.sampled_from(["..", ".", "", "a", "b", "C:", "~", " "]), st.text(max_size=3)), min_size=1, max_size=4
)


@given(st.lists(st.tuples(NAMES, st.sampled_from("/\\")), min_size=1, max_size=3), st.sampled_from([".zip", ".tar"]))
def test_no_path_leaves_the_target(members, ending):
    names = [slash.join(parts).encode("utf-8", "ignore").decode() for parts, slash in members]
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        pack(base / "in" / f"x{ending}", [(name, b"content") for name in names])
        unread = archives.unpack(base / "in", base / "deep" / "er" / "target", ())
        inside = base / "deep" / "er" / "target" / f"x{ending}"
        assert {path for path in base.rglob("*") if path.is_file() and ".stamps" not in str(path)} == {
            base / "in" / f"x{ending}",
            *(path for path in inside.rglob("*") if path.is_file()),
        }
        plain = [name for name in names if name.isascii() and name.isalpha()]
        if len(plain) == len(names):
            assert not unread and {path.name for path in inside.iterdir()} == set(plain)
