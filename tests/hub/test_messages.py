"""What is said of the Hub, and what is kept to oneself."""

import httpx2
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from atom_hf.hub.messages import reason, without_token
from helpers.hub_server import TOKEN


@pytest.mark.promise("No token is shown, logged, saved or pushed.")
def test_a_token_is_taken_out_of_any_text(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "one of a form yet unknown")
    text = f"hf_hub_download sent Bearer {TOKEN}, hf_jwt_aa.bb-cc_dd and one of a form yet unknown"
    assert without_token(text) == "hf_hub_download sent Bearer <token>, <token> and <token>"


def test_a_name_in_a_folder_that_is_here_may_be_a_folder_or_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = httpx2.Request("GET", "https://huggingface.co/api/models/runs/last")
    answer = httpx2.Response(401, request=request, headers={"X-Error-Code": "RepoNotFound"})
    error = RepositoryNotFoundError("401", response=answer)
    assert reason(error, "runs/last").startswith("there is no such model on the Hub, or it is private")
    (tmp_path / "runs").mkdir()
    expected = "there is no such folder in runs, and no such model on the Hub, or it is private"
    assert reason(error, "runs/last").startswith(expected)
    post = httpx2.Response(401, request=httpx2.Request("POST", request.url), headers=answer.headers)
    assert "folder" not in reason(RepositoryNotFoundError("401", response=post), "runs/last")


def test_a_hub_that_cannot_be_reached_is_not_called_a_missing_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    lost = LocalEntryNotFoundError("gone")
    found = reason(lost, "org/name", cache_dir=tmp_path)
    assert found.startswith("there is no such folder, and no such model in the cache, and the Hub (http")
    (tmp_path / "models--org--name" / "snapshots" / "1").mkdir(parents=True)
    (tmp_path / "models--org--name" / "snapshots" / "1" / "config.json").touch()
    assert "cannot be reached, and the cache does not hold it" in reason(lost, "org/name", cache_dir=tmp_path)
