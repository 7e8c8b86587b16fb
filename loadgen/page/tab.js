// Locust gives an extended tab a title and, at most, a table: what it shows is put beneath it here, in a frame.
"use strict";
(() => {
  const TITLE = "Experiment";
  let frame = null;

  function chosen() {
    return [...document.querySelectorAll('[role="tab"][aria-selected="true"]')].find((tab) => tab.textContent.trim() === TITLE);
  }

  // Locust's page has a switch of its own for dark and light: follow what is seen, not what the system prefers.
  function theme() {
    const [red, green, blue] = (getComputedStyle(document.body).backgroundColor.match(/[\d.]+/g) || [255, 255, 255]).map(Number);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 128 ? "dark" : "light";
  }

  function paint() {
    const root = frame && frame.contentDocument && frame.contentDocument.documentElement;
    if (root && root.dataset.theme !== theme()) root.dataset.theme = theme();
  }

  // The box that holds the bar of tabs and nothing else.
  function beneath(tab) {
    return (tab.closest(".MuiTabs-root") || tab.closest('[role="tablist"]').parentElement.parentElement).parentElement;
  }

  function update() {
    const tab = chosen();
    if (!tab) {
      if (frame) frame.remove();
      frame = null;
      return;
    }
    if (!frame) {
      frame = document.createElement("iframe");
      frame.src = "./experiment";
      frame.title = TITLE;
      frame.style.cssText = "display:block;width:100%;height:70vh;border:0;color-scheme:normal";
      frame.addEventListener("load", paint);
      beneath(tab).after(frame);
    }
    paint();
  }

  new MutationObserver(update).observe(document.documentElement, { subtree: true, childList: true, attributes: true,
    attributeFilter: ["aria-selected", "class"] });
  update();
})();
