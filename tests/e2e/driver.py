"""What drives the browser. Playwright is large, so it is no part of `make test`: without it these tests are skipped."""

import pytest

from tests.conftest import in_ci

if in_ci():
    from playwright.async_api import Browser, BrowserContext, Locator, Page, Route, async_playwright, expect
else:
    _found = pytest.importorskip("playwright.async_api")
    Browser, BrowserContext, Locator = _found.Browser, _found.BrowserContext, _found.Locator
    Page, Route = _found.Page, _found.Route
    async_playwright, expect = _found.async_playwright, _found.expect

PATIENCE = 30_000  # ms, on a machine that is busy with other things; nothing waits longer than it has to
expect.set_options(timeout=PATIENCE)

__all__ = ["PATIENCE", "Browser", "BrowserContext", "Locator", "Page", "Route", "async_playwright", "expect"]
