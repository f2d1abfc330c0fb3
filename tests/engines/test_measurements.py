"""What was measured is kept once, for all processes of this machine."""

import msgspec

from src.engines import measurements

KEY: measurements.Key = {"what": "speed", "threads": 2}


def test_what_is_kept_is_found_under_its_key_alone(tmp_path):
    assert measurements.kept(tmp_path, KEY, dict[str, float]) is None
    assert measurements.keep(tmp_path, KEY, {"f16": 0.25}, dict[str, float]) == {"f16": 0.25}
    assert measurements.kept(tmp_path, dict(reversed(KEY.items())), dict[str, float]) == {"f16": 0.25}
    assert measurements.kept(tmp_path, {**KEY, "threads": 1}, dict[str, float]) is None


def test_of_two_that_measure_at_once_both_use_what_the_first_has_kept(tmp_path):
    measurements.keep(tmp_path, KEY, {"f16": 0.25}, dict[str, float])
    assert measurements.keep(tmp_path, KEY, {"f16": 0.5}, dict[str, float]) == {"f16": 0.25}


def test_a_file_that_cannot_be_read_is_measured_again(tmp_path):
    measurements.keep(tmp_path, KEY, {"f16": 0.25}, dict[str, float])
    (file,) = tmp_path.iterdir()
    for wrong in (b"", b'{"f16":', msgspec.json.encode({"f16": "quick"})):
        file.write_bytes(wrong)
        assert measurements.kept(tmp_path, KEY, dict[str, float]) is None
        assert measurements.keep(tmp_path, KEY, {"f16": 0.5}, dict[str, float]) == {"f16": 0.5}
        assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_folder_that_cannot_be_made_keeps_nothing_and_breaks_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    assert measurements.keep(tmp_path / "file" / "folder", KEY, {"f16": 0.25}, dict[str, float]) == {"f16": 0.25}


def test_the_folder_is_the_users_cache_or_else_the_fallback(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert measurements.folder(tmp_path) == tmp_path / "cache" / measurements.FOLDER
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert measurements.folder(tmp_path) == tmp_path / "measurements"
