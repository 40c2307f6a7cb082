r"""Runs in a participant's own voxels -> vertices of fsaverage, kept where the Glasser parcellation has wanted areas.

    python -m datasets_scripts.project_to_fsaverage --input_dir runs/lebel --output_dir runs/lebel_fs \\
        --participant UTS03 --freesurfer subjects/UTS03 --fsaverage subjects/fsaverage \\
        --mask mask_thick.nii.gz --to_voxel matrices.xfm

Every vertex of fsaverage takes the nearest vertex of the participant on the registered sphere, and its BOLD in the
middle of the cortex by linear interpolation. Sounds and aligned words go along. The areas are those of HCP-MMP1
(`<hemisphere>.HCP-MMP1.annot` in the folder `label` of fsaverage); with the areas of brain-tuning's regions this is the
step that arXiv 2510.21520 did not release.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bit_speech.data.cortical_areas import ROI_SETS
from bit_speech.data.story_runs import StoryRun, list_runs, read_run, write_run
from bit_speech.files import write_bytes, write_json
from bit_speech.import_utils import require

HEMISPHERES = ("lh", "rh")


def nearest_vertices(sphere: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Find the vertex of one sphere that is nearest to each vertex of another.

    Args:
        sphere (`np.ndarray` of shape `(N, 3)`): a participant's registered sphere.
        wanted (`np.ndarray` of shape `(M, 3)`): the template's.

    Returns:
        `np.ndarray` of shape `(M,)`: positions in `sphere`.
    """
    from scipy.spatial import cKDTree

    def unit(points: np.ndarray) -> np.ndarray:
        return points / np.linalg.norm(points, axis=1, keepdims=True)

    return cKDTree(unit(sphere)).query(unit(wanted))[1]


def interpolation(places: np.ndarray, mask: np.ndarray) -> Any:
    """Make the matrix that takes masked voxels to points between them.

    Args:
        places (`np.ndarray` of shape `(M, 3)`): points in voxel coordinates, in the order of the axes of `mask`.
        mask (`np.ndarray` of shape `(A, B, C)`): True where a voxel was kept; kept voxels are in the order of
            `array[mask]`.

    Returns:
        `scipy.sparse.csr_matrix` of shape `(M, kept voxels)`: rows sum to 1, or are empty outside the mask.
    """
    from scipy.sparse import coo_matrix

    index = np.full(mask.shape, -1)
    index[mask] = np.arange(int(mask.sum()))
    low = np.floor(places).astype(int)
    share = places - low
    rows, columns, values = [], [], []
    for corner in np.ndindex(2, 2, 2):
        at = low + corner
        weight = np.prod(np.where(corner, share, 1 - share), axis=1)
        inside = ((at >= 0) & (at < mask.shape)).all(axis=1) & (weight > 0)
        found = np.full(len(places), -1)
        found[inside] = index[tuple(at[inside].T)]
        good = np.flatnonzero(found >= 0)
        rows.append(good)
        columns.append(found[good])
        values.append(weight[good])
    matrix = coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(len(places), int(mask.sum()))
    ).tocsr()
    total = np.asarray(matrix.sum(axis=1)).ravel()
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    matrix.data *= np.repeat(scale, np.diff(matrix.indptr))
    return matrix


def projection(
    freesurfer: Path, fsaverage: Path, mask: np.ndarray, to_voxel: np.ndarray, areas: list[str] | None
) -> tuple[Any, list[str], np.ndarray]:
    """Make the matrix from a participant's voxels to vertices of fsaverage.

    Args:
        freesurfer (`Path`): the participant's FreeSurfer folder (`surf/lh.white`, `lh.pial`, `lh.sphere.reg`, ...).
        fsaverage (`Path`): the template's, with `label/lh.HCP-MMP1.annot`.
        mask (`np.ndarray`): True where a voxel was kept.
        to_voxel (`np.ndarray` of shape `(4, 4)`): from surface coordinates in mm to voxels, in the order of the axes of
            `mask`.
        areas (`list[str]`, *optional*): Glasser areas to keep, without hemisphere; default all.

    Returns:
        `tuple`: the matrix, the area of every vertex, and the number of every vertex in both hemispheres of fsaverage.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if an area does not exist.
    """
    surfaces = require("nibabel").freesurfer
    from scipy.sparse import vstack

    parts, names, numbers, offset = [], [], [], 0
    for side in HEMISPHERES:
        white = surfaces.read_geometry(freesurfer / "surf" / f"{side}.white")[0]
        pial = surfaces.read_geometry(freesurfer / "surf" / f"{side}.pial")[0]
        sphere = surfaces.read_geometry(freesurfer / "surf" / f"{side}.sphere.reg")[0]
        template = surfaces.read_geometry(fsaverage / "surf" / f"{side}.sphere.reg")[0]
        labels, _, found = surfaces.read_annot(fsaverage / "label" / f"{side}.HCP-MMP1.annot")
        known = [name.decode().removeprefix(f"{side[0].upper()}_").removesuffix("_ROI") for name in found]
        missing = [area for area in areas or [] if area not in known]
        if missing:
            raise ValueError(f"the parcellation has no area {', '.join(missing)}; it has {', '.join(known[:6])}, ...")
        area_of = np.array([known[label] if label >= 0 else "???" for label in labels])
        kept = np.flatnonzero(np.isin(area_of, areas) if areas else area_of != "???")
        middle = ((white + pial) / 2)[nearest_vertices(sphere, template[kept])]
        parts.append(interpolation(middle @ to_voxel[:3, :3].T + to_voxel[:3, 3], mask))
        names += area_of[kept].tolist()
        numbers.append(kept + offset)
        offset += len(template)
    return vstack(parts).tocsr(), names, np.concatenate(numbers)


def project(
    input_dir: str, output_dir: str, participant: str, freesurfer: str, fsaverage: str, mask: str,
    to_voxel: str | None = None, regions: str | None = "paper",
) -> str:  # fmt: skip
    """Project all runs of a participant.

    Args:
        input_dir (`str`): folder of stories in the participant's own voxels.
        output_dir (`str`): folder of stories on fsaverage; `areas.json` there names area and vertex of every column.
        participant (`str`): whose.
        freesurfer (`str`): the participant's FreeSurfer folder.
        fsaverage (`str`): the template's, with the HCP-MMP1 annotation.
        mask (`str`): NIfTI of the voxels that the runs hold.
        to_voxel (`str`, *optional*): JSON with a 4 x 4 matrix `coord` from surface mm to voxels (x, y, z), as pycortex
            stores it; default the inverse of the mask's affine.
        regions (`str`, *optional*): keep the areas of this set (`paper` or `released_code`); `all` keeps every area.

    Returns:
        `str`: what was done.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the mask does not fit the runs, or the folder has other vertices already.
    """
    nibabel = require("nibabel")
    image = nibabel.load(mask)
    kept = np.asarray(image.dataobj) > 0
    if to_voxel is None:
        matrix = np.linalg.inv(image.affine)
    else:
        matrix = np.array(json.loads(Path(to_voxel).read_text(encoding="utf-8"))["coord"], dtype=np.float64)
        # Pycortex keeps volumes as (z, y, x) and matrices as (x, y, z).
        kept = kept.T
        matrix = matrix[[2, 1, 0, 3]]
    areas = None if regions in (None, "all") else _areas(str(regions))
    weights, names, numbers = projection(Path(freesurfer), Path(fsaverage), kept, matrix, areas)
    table = Path(output_dir) / "areas.json"
    content = {"areas": names, "vertices": numbers.tolist()}
    if table.is_file() and json.loads(table.read_text(encoding="utf-8")) != content:
        raise ValueError(f"{table} has other vertices: give all participants the same regions")
    stories = list_runs(input_dir).get(participant, [])
    for story in stories:
        run = read_run(input_dir, participant, story, with_repeats=True)
        if run.responses.shape[1] != weights.shape[1]:
            raise ValueError(f"the mask keeps {weights.shape[1]} voxels, {story} has {run.responses.shape[1]}")
        repeats = None
        if run.repeats is not None:
            repeats = np.stack([(weights @ one.T).T.astype(np.float32) for one in run.repeats])
        projected = np.ascontiguousarray((weights @ run.responses.T).T.astype(np.float32))
        write_run(
            output_dir,
            StoryRun(
                participant, story, run.split, projected, run.tr_times_s, run.tr_s, "fsaverage", run.source,
                run.licence, repeats,
            ),
        )  # fmt: skip
        copy_sound(Path(input_dir), Path(output_dir), story)
    write_json(table, content)
    empty = int((np.diff(weights.indptr) == 0).sum())
    return f"{participant}: {len(stories)} stories, {len(names)} vertices, {empty} of them outside the mask (zero)"


def copy_sound(source: Path, target: Path, story: str) -> None:
    """Copy the sound of a story and its aligned words, once for all participants.

    Args:
        source (`Path`): folder of stories.
        target (`Path`): another.
        story (`str`): which.
    """
    for path in source.glob(f"stories/{story}.*"):
        if not (target / "stories" / path.name).is_file():
            write_bytes(target / "stories" / path.name, path.read_bytes())


def _areas(regions: str) -> list[str]:
    if regions not in ROI_SETS:
        raise ValueError(f"there is no set of regions {regions!r}; choose one of {', '.join(ROI_SETS)}, all")
    return sorted({area for members in ROI_SETS[regions].values() for area in members})


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv (`list[str]`, *optional*): arguments; default those of the process.

    Returns:
        `int`: 0, or 2 when the input was refused.
    """
    parser = argparse.ArgumentParser(
        prog="python -m datasets_scripts.project_to_fsaverage",
        description=(__doc__ or "").split("\n")[0],
    )
    for name, text in (
        ("input_dir", "folder of stories in the participant's own voxels"),
        ("output_dir", "folder of stories on fsaverage"),
        ("participant", "whose"),
        ("freesurfer", "the participant's FreeSurfer folder"),
        ("fsaverage", "the template's folder, with label/*.HCP-MMP1.annot"),
        ("mask", "NIfTI of the voxels that the runs hold"),
    ):
        parser.add_argument(f"--{name}", required=True, help=text)
    parser.add_argument("--to_voxel", help="JSON with the matrix `coord` (default: from the mask's affine)")
    parser.add_argument("--regions", default="paper", help="paper, released_code or all (default: paper)")
    try:
        print(project(**vars(parser.parse_args(argv))))
    except (ValueError, FileNotFoundError, ImportError) as error:
        print(f"project_to_fsaverage: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
