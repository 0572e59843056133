"""Rows to predict: of tables, texts, pictures or folders of them, read from the disk part by part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from ..builtin import BUILT_IN_DATASETS
from ..errors import AtomError
from .columns import LABEL_NAMES, TEXT_PAIRS, find_text, is_image, is_text
from .pictures import Picture
from .sources import IMAGE_FILES, load_source

ROLES = ("text", "text_pair", "image", "label")


@dataclass(frozen=True)
class Rows:
    """Rows in the order of their files, which stay on the disk: `datasets` maps them into memory as they are read."""

    rows: datasets.Dataset
    """Columns "text" and perhaps "text_pair", or "image" (not decoded), and perhaps "label"."""
    columns: dict[str, str]
    """The names of these columns in the files, by role."""
    label_feature: Any = None
    """What the file says of its labels."""

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> list[dict[str, Any]]:
        """The rows from `start` to before `stop`. A picture is decoded, and has its "file" (None where it is in a table).

        Raises:
            AtomError: a picture that cannot be read.
        """
        columns = self.rows[start:stop]
        found = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        for row in found:
            if "image" in row:
                path = (row["image"] or {}).get("path")
                row |= {"image": Picture().decode_example(row["image"]), "file": path and Path(path).name}
        return found


def read_rows(files: list[str], of_images: bool, given: dict[str, str | None]) -> Rows:
    """The rows of files and folders, one below the other.

    Args:
        files: tables, files of texts (one per line), pictures, or folders of these. The classes of a folder of folders of
            pictures are labels.
        of_images: whether pictures are wanted; else texts.
        given: the names of columns by role (`ROLES`), None to find them. A label is looked for under the usual names.

    Raises:
        AtomError: a file that does not exist or cannot be read, columns that are not there, rows without text.
    """
    pictures, parts, columns, feature = [], [], {}, None
    for file in files:
        path = Path(file).expanduser()
        if not path.exists():
            raise AtomError(f"--file {file!r}: there is no such file or folder")
        if found := _pictures(path):
            pictures += [{"path": str(picture), "bytes": None} for picture in found]
            continue
        # A path, even if a built-in data set has the same name.
        name = f"./{file}" if file in BUILT_IN_DATASETS else file
        splits = load_source(name, None, "--file", [name for name in given.values() if name])
        for rows in splits.values():
            rows, columns, feature = _chosen(rows, of_images, given, f"--file {file!r}")
            parts.append(rows)
    if pictures and parts:
        raise AtomError("--file: pictures and other files were given; give either")
    if pictures:
        if not of_images:
            raise AtomError("--file: the model takes texts, and pictures were given")
        if named := [role for role, column in given.items() if column]:
            raise AtomError(f"--{named[0]}_column: pictures have no columns; leave it out")
        features = datasets.Features({"image": datasets.Image(decode=False)})
        return Rows(datasets.Dataset.from_dict({"image": pictures}, features=features), {})
    if len({tuple(part.column_names) for part in parts}) > 1:
        raise AtomError("--file: the files have different columns; predict them one by one")
    try:
        return Rows(datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0], columns, feature)
    except (ValueError, TypeError) as error:
        raise AtomError(
            "--file: columns of the same name hold different things; predict the files one by one"
        ) from error


def _pictures(path: Path) -> list[Path]:
    """A picture, or those that lie in a folder itself."""
    if path.is_dir():
        return sorted(child for child in path.iterdir() if child.suffix.lower() in IMAGE_FILES and child.is_file())
    return [path] if path.suffix.lower() in IMAGE_FILES else []


def _chosen(
    rows: datasets.Dataset, of_images: bool, given: dict[str, str | None], where: str
) -> tuple[datasets.Dataset, dict[str, str], Any]:
    """The columns that are needed, renamed to their roles; their names, by role; and the feature of the label."""
    features = rows.features
    present = f"the columns of it are {', '.join(features)}"
    chosen = {role: column for role, column in given.items() if column is not None}
    for role, column in chosen.items():
        if column not in features:
            raise AtomError(f"--{role}_column {column!r} does not exist in {where}; {present}")
    free = {column.strip().lower(): column for column in features if column not in chosen.values()}
    label = chosen.get("label") or next((free[name] for name in LABEL_NAMES if name in free), None)
    if of_images:
        image = chosen.get("image") or next((column for column in features if is_image(features[column])), None)
        if image is None or not is_image(features[image]):
            raise AtomError(f"{where}: the model takes images, and no column holds any (--image_column); {present}")
        columns = {"image": image}
    else:
        if "text" not in chosen and "text_pair" not in chosen:
            first, second = next((pair for pair in TEXT_PAIRS if {*pair} <= {*free}), (None, None))
            chosen |= {"text": free[first], "text_pair": free[second]} if first else {}
        text = chosen.get("text") or find_text(rows, [c for c in free.values() if c != label])
        if text is None:
            raise AtomError(f"{where}: the model takes texts, and no column holds any (--text_column); {present}")
        columns = {"text": text, **({"text_pair": chosen["text_pair"]} if "text_pair" in chosen else {})}
    if label is not None and label not in columns.values():
        columns["label"] = label
    feature = features[label] if "label" in columns else None
    rows = rows.select_columns(list(columns.values())).rename_columns({name: role for role, name in columns.items()})
    for role in columns.keys() & {"text", "text_pair"}:
        if not is_text(rows.features[role]):
            raise AtomError(f"--{role}_column {columns[role]!r} does not hold strings; {present}")
        if none := rows.data.column(role).null_count:
            raise AtomError(f"{where}: {none} rows have no text in column {columns[role]!r}; fill or remove them")
        if rows.features[role].dtype != "string":  # as readers of other files make it, which may stand below
            rows = rows.cast_column(role, datasets.Value("string"))
    if of_images:
        rows = rows.cast_column("image", datasets.Image(decode=False))
    return rows, columns, feature
