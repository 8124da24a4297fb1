"""Lines of `qarm check`: texts as the encoder reads them, and how times were read."""

from pathlib import Path

import pytest

from qarm.cli import main


def test_texts_and_times_are_shown_as_they_were_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [f"{n:03d},{'long ' * 50 if n == 2 else f'thing {n}'},{n}.10" for n in range(12)]
    (tmp_path / "items.csv").write_text("\n".join(["item_id,title,price", *items]))
    days = [f"{n % 28 + 1:02d}/{n // 28 + 1:02d}/2024" for n in range(120)]
    clicks = [f"u{n % 12},{n % 11:03d},{day}" for n, day in enumerate(days)]
    (tmp_path / "clicks.csv").write_text("\n".join(["user_id,item_id,timestamp", *clicks]))
    (tmp_path / "c.yaml").write_text(
        "data:\n  items: {path: items.csv, text: [title, price], image: null, audio: null}\n"
        "  interactions: {path: clicks.csv}\nencoder: {image: null, audio: null}\n"
        "quantizer: {nearest: 2, width: 4}\n"
    )
    main(["check", str(tmp_path / "c.yaml"), "--data.root", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    first = lines.index("texts, as the encoder reads them:")
    assert lines[first + 1 : first + 3] == ["  000: thing 0 | 0.10", "  001: thing 1 | 1.10"]
    assert lines[first + 3].endswith("...")
    assert lines[first + 10] == "  009: thing 9 | 9.10"
    assert (
        "times: 2024-01-01T00:00:00 to 2024-05-08T00:00:00 (dates of day/month/year, as UTC; a day above 12 "
        "shows it)"
    ) in lines
