"""The page of `atom-hf fragments` in a real browser: accessible in both colours, and no wider than a phone."""

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe

from atom_hf.fragments import Channel, by_regularization, compare_channels, find_hotspots, fuse
from atom_hf.fragments.arguments import FragmentsArguments
from atom_hf.fragments.command import Found, representations
from atom_hf.fragments.report import write_files
from helpers.accessibility import RULES
from helpers.browser import DESK, PHONE, opened

RUNS, POINTS = 4, 60


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """All that the page can show, of latents of four runs: two that all have learned, and one of each run's own."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(POINTS) % 3
    known = [labels.double(), torch.randn(POINTS, generator=draw, dtype=torch.float64)]
    channels = []
    for run in range(RUNS):
        for number, values in enumerate([*known, torch.randn(POINTS, generator=draw, dtype=torch.float64)]):
            mean = values + 0.1 * torch.randn(POINTS, generator=draw, dtype=torch.float64)
            about = {"name": f"latent {number}", "run": f"beta-{1 + run // 2}-seed-{run}"}
            channels.append(Channel.gaussian(mean, torch.full((POINTS,), -2.0), ids=range(POINTS), **about))
    truth = Channel.hard(labels, ids=range(POINTS))
    comparison = compare_channels(channels, chance=True)
    strengths = {channel.run: 1.0 + place // 6 for place, channel in enumerate(channels)}
    fusion = fuse(channels, steps=20)
    found = Found(
        "posterior",
        "shapes",
        channels,
        comparison,
        compare_channels(channels, [truth], chance=True),
        find_hotspots(channels, comparison=comparison),
        labels,
        ["circle", "square", "cross"],
        strengths,
        by_regularization(channels, strengths),
        fusion,
        representations(fusion, channels),
        {"selected": ["beta-1-seed-0"], "by_information": 0.8, "random": 0.7, "all": 0.8, "by_labels": 0.9},
    )
    run = FragmentsArguments(models=list(strengths), regularization="beta", fuse="vi")
    return write_files(found, run, tmp_path_factory.mktemp("page"))[-1]


@pytest.mark.parametrize("scheme, size", [("light", PHONE), ("dark", DESK)], ids=["light-phone", "dark-desk"])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(chromium, page, scheme, size):
    with opened(chromium, page, size=size, color_scheme=scheme) as shown:
        results = Axe().run(shown, options=RULES)
        assert results.violations_count == 0, results.generate_report()
        assert {"color-contrast", "region", "image-alt"} <= {rule["id"] for rule in results.response["passes"]}
        assert shown.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert shown.locator("img").count() == 4 and shown.locator("table").count() == 7


def test_the_page_is_read_without_scripts(chromium, page):
    with opened(chromium, page, java_script_enabled=False) as shown:
        assert shown.get_by_role("heading", name="Which channels say the same").is_visible()
        for table in shown.locator("table").all():
            assert table.is_visible() and table.locator("caption").count() == 1
        assert all(len(image.get_attribute("alt")) > 20 for image in shown.locator("img").all())
