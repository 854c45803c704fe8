import socket

from lesion.train import monitor


def test_files_of_scalars_name_no_machine(tmp_path):
    writer = monitor.Monitor("fold 1", tmp_path, 2)
    writer.replay([{"loss": 1.0}, {"loss": 0.5}])
    (path,) = tmp_path.iterdir()
    host = socket.gethostname()
    assert path.name.startswith("events.out.tfevents.") and not path.name.endswith(host)
    assert b"loss" in path.read_bytes() and host.encode() not in path.read_bytes()


def test_without_semaphores_there_are_no_scalars_and_that_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(monitor, "has_semaphores", lambda: False)  # as without /dev/shm
    monitor.Monitor("fit", tmp_path / "tensorboard", 1).replay([{"loss": 0.5}])
    assert not (tmp_path / "tensorboard").exists()
    told = capsys.readouterr().err
    assert "fit: no scalars for TensorBoard" in told and "fit: 1 epochs, loss 0.500" in told
