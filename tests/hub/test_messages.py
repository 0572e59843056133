"""What is said of the Hub, and what is kept to oneself."""

import pytest

from atom_hf.hub.messages import without_token
from helpers.hub_server import TOKEN


@pytest.mark.promise("No token is shown, logged, saved or pushed.")
def test_a_token_is_taken_out_of_any_text(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "one of a form yet unknown")
    text = f"hf_hub_download sent Bearer {TOKEN}, hf_jwt_aa.bb-cc_dd and one of a form yet unknown"
    assert without_token(text) == "hf_hub_download sent Bearer <token>, <token> and <token>"
