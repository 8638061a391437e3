"""A tab of a real browser that notes whatever a page must not do."""


class Watched:
    """A tab, and what it did that a page must not do: console messages, errors, dialogs and requests."""

    def __init__(self, browser, path, *, width=1280, anchor="", touch=False):
        self.tab = browser.new_page(
            viewport={"width": width, "height": 900},
            accept_downloads=True,
            has_touch=touch,
            is_mobile=touch and width < 500,
        )
        self.wrong = []
        self.tab.on("console", lambda message: self.wrong.append(message.text[:200]))
        self.tab.on("pageerror", lambda error: self.wrong.append(str(error)[:200]))
        self.tab.on("dialog", lambda dialog: (self.wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.tab.on("request", lambda request: self._requested(request.url, path))
        self.tab.goto(f"{path.as_uri()}{anchor}")

    def _requested(self, url, path):
        if not url.startswith(("data:", "blob:", path.as_uri())):
            self.wrong.append(url)

    def is_ready(self):
        self.tab.wait_for_selector("html[data-ready]")
        return self

    def saved(self, button):
        with self.tab.expect_download() as download:
            self.tab.click(button)
        return download.value.path().read_bytes()


def centres(page, selector="#plot .scatterlayer .points path"):
    boxes = [point.bounding_box() for point in page.tab.locator(selector).all()]
    return [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes]
