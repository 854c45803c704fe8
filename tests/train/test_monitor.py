import socket

from lesion.train.monitor import Monitor


def test_files_of_scalars_name_no_machine(tmp_path):
    monitor = Monitor("fold 1", tmp_path, 2)
    monitor.replay([{"loss": 1.0}, {"loss": 0.5}])
    (path,) = tmp_path.iterdir()
    host = socket.gethostname()
    assert path.name.startswith("events.out.tfevents.") and not path.name.endswith(host)
    assert b"loss" in path.read_bytes() and host.encode() not in path.read_bytes()
