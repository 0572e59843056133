"""The Hub's demands on the metadata of a model card, as far as it is written down.

From the specification of model cards and the list of licences in huggingface/hub-docs (`modelcard.md`,
`docs/hub/repositories-licenses.md`), the list of tasks in huggingface/huggingface.js (`packages/tasks/src/pipelines.ts`) and
the documentation of `huggingface_hub.ModelCardData`.
"""

import math
import re

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import HFValidationError, validate_repo_id

LICENSES = re.findall(
    r"\S+",
    """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1
lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl
lgpl-lr deepfloyd-if-license llama2 gemma unknown other
""",
)
TASKS = re.findall(
    r"\S+",
    """
text-classification token-classification table-question-answering question-answering zero-shot-classification
translation summarization feature-extraction text-generation text2text-generation fill-mask sentence-similarity
text-to-speech text-to-audio automatic-speech-recognition audio-to-audio audio-classification voice-activity-detection
depth-estimation image-classification object-detection image-segmentation text-to-image image-to-text image-to-image
image-to-video unconditional-image-generation video-classification reinforcement-learning robotics
tabular-classification tabular-regression multiple-choice image-text-to-text visual-question-answering
document-question-answering zero-shot-image-classification mask-generation video-text-to-text
zero-shot-object-detection image-feature-extraction
""",
)
RELATIONS = ("adapter", "finetune", "merge", "quantized")


def metadata_errors(content: str) -> list[str]:
    """What the Hub would reject in a card, in its manner: '"license" must be one of [...]'. A card needs no metadata."""
    block = REGEX_YAML_BLOCK.search(content)
    try:
        data = yaml.safe_load(block[2]) if block else {}
    except yaml.YAMLError as error:
        return [f"YAML: {error}"]
    if not isinstance(data, dict):
        return ["the metadata must be an object"]
    found = []

    def check(key, good, what):
        if key in data and not good(data[key]):
            found.append(f'"{key}" must be {what}')

    listed = {key: data[key] if isinstance(data[key], list) else [data[key]] for key in data}
    check("license", lambda value: value in LICENSES, f"one of [{', '.join(LICENSES)}]")
    check("pipeline_tag", lambda value: value in TASKS, f"one of [{', '.join(TASKS)}]")
    check("base_model_relation", lambda value: value in RELATIONS, f"one of [{', '.join(RELATIONS)}]")
    check("library_name", lambda value: isinstance(value, str), "a string")
    for key in ("base_model", "datasets"):
        check(key, lambda _, key=key: all(map(_is_id, listed[key])), "ids of repositories")
    for key in ("tags", "metrics", "datasets"):
        check(
            key, lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value), "a list of strings"
        )
    code = r"[a-z]{2,3}(-[A-Za-z]+)?|code|multilingual"
    check(
        "language",
        lambda _: all(isinstance(v, str) and re.fullmatch(code, v) for v in listed["language"]),
        "codes of ISO 639",
    )
    if "model-index" in data:
        try:
            found += _index_errors(data["model-index"])
        except (KeyError, TypeError, AttributeError) as error:
            found.append(f'"model-index" lacks {error}')
    return found


def _index_errors(index):
    found = []
    for model in index:
        if not isinstance(model["name"], str):
            found.append('"model-index[].name" must be a string')
        for result in model["results"]:
            if result["task"]["type"] not in TASKS:
                found.append(f'"model-index[].results[].task.type" must be one of [{", ".join(TASKS)}]')
            for key, value in {"type": result["dataset"]["type"], **result["dataset"]}.items():
                if not isinstance(value, str) and key != "args":
                    found.append(f'"model-index[].results[].dataset.{key}" must be a string')
            result["dataset"]["name"]
            for metric in result["metrics"]:
                value = metric["value"]
                if (
                    not isinstance(metric["type"], str)
                    or isinstance(value, bool)
                    or not isinstance(value, str | int | float)
                ):
                    found.append('"model-index[].results[].metrics[]" must have a type and a value')
                elif not isinstance(value, str) and not math.isfinite(value):
                    found.append('"model-index[].results[].metrics[].value" must be finite')
    return found


def empty_values(value, path=""):
    """Where in metadata nothing stands, though its name does: the Hub may take it, and it says nothing."""
    if value is None or value in ("", [], {}):
        return [path]
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, v in inside for p in empty_values(v, f"{path}.{key}" if path else str(key))]


def _is_id(value):
    try:
        validate_repo_id(value)
    except (HFValidationError, TypeError):
        return False
    return True
