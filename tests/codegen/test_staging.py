"""Files that come to a folder all together, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tbc.codegen.staging import staged


def test_files_of_all_folders_come_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/mine").write_text("mine")
    (tmp_path / "a").write_text("old")
    with staged(tmp_path) as place:
        (place / "lib/deep").mkdir(parents=True)
        (place / "lib/deep/b").write_text("new")
        (place / "a").write_text("new")
        assert (tmp_path / "a").read_text() == "old"
    found = {str(p.relative_to(tmp_path)): p for p in tmp_path.rglob("*") if p.is_file()}
    texts = {name: path.read_text() for name, path in found.items()}
    assert texts == {"a": "new", "lib/deep/b": "new", "lib/mine": "mine"}
    assert not place.exists()


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_nothing_is_left_of_what_is_broken_off(error: type[BaseException], tmp_path: Path) -> None:
    def broken_off() -> None:
        with staged(tmp_path / "new/folder") as place:
            (place / "a").write_text("half")
            raise error

    with pytest.raises(error):
        broken_off()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "new").mkdir()
    with pytest.raises(error):
        broken_off()
    assert list(tmp_path.rglob("*")) == [tmp_path / "new"]
