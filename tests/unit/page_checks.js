// What a page must be in a window of any size: run in the page, gives a list of faults in words, [] where it has none.
(() => {
  const faults = [];
  const width = window.innerWidth;
  const print = matchMedia("print").matches;
  const LARGE = 24, LARGE_BOLD = 18.66, SLACK = 1;

  document.querySelectorAll("details").forEach((each) => { each.open = true; });

  const name = (node) => {
    const own = node.tagName.toLowerCase() + (node.id ? "#" + node.id : "");
    const classes = node.getAttribute("class");
    return own + (classes ? "." + classes.trim().split(/\s+/).join(".") : "") + " '" +
      (node.textContent || "").trim().replace(/\s+/g, " ").slice(0, 40) + "'";
  };
  const scrolls = (style) => style.overflowX === "auto" || style.overflowX === "scroll";
  const known = new Map();
  const scroller = (node) => {
    const up = node.parentElement;
    if (!up || up === document.body) return null;
    if (!known.has(up)) known.set(up, scrolls(getComputedStyle(up)) ? up : scroller(up));
    return known.get(up);
  };

  // the page is not wider than the window, and nothing sticks out of what it is in
  if (document.documentElement.scrollWidth > width) {
    faults.push("overflow: the page is " + document.documentElement.scrollWidth + " wide in a window of " + width);
  }
  for (const node of document.body.querySelectorAll("*")) {
    const box = node.getBoundingClientRect();
    if (!box.width || !box.height) continue;
    const style = getComputedStyle(node);
    const inside = scroller(node);
    if (!inside && (box.right > width + SLACK || box.left < -SLACK)) {
      faults.push("overflow: " + name(node) + " reaches from " + Math.round(box.left) + " to " + Math.round(box.right));
    }
    const html = node instanceof HTMLElement;
    const spills = html && node.scrollWidth > node.clientWidth + SLACK && style.display !== "inline";
    if (spills && scrolls(style)) {
      if (node.tabIndex !== 0) faults.push("focus: " + name(node) + " scrolls and cannot be reached by keyboard");
      if (!node.getAttribute("aria-label")) faults.push("name: " + name(node) + " scrolls and has no name");
      if (print) faults.push("overflow: " + name(node) + " is cut off on paper");
    } else if (spills && style.overflowX === "visible" && !inside) {
      faults.push("overflow: what is in " + name(node) + " is " + node.scrollWidth + " wide in " + node.clientWidth);
    } else if (spills && style.overflowX !== "visible") {
      faults.push("overflow: what is in " + name(node) + " is cut off");
    }
  }
  for (const text of document.querySelectorAll("svg text")) {
    const box = text.getBoundingClientRect(), around = text.ownerSVGElement.getBoundingClientRect();
    if (box.right > around.right + SLACK || box.left < around.left - SLACK ||
        box.bottom > around.bottom + SLACK || box.top < around.top - SLACK) {
      faults.push("overflow: " + name(text) + " is cut off by its drawing");
    }
  }

  // every text can be told from what is behind it (WCAG 2, level AA)
  const parse = (text) => {
    const found = /^rgba?\(([\d.]+),\s*([\d.]+),\s*([\d.]+)(?:,\s*([\d.]+))?\)$/.exec(text);
    return found ? [+found[1], +found[2], +found[3], found[4] === undefined ? 1 : +found[4]] : null;
  };
  const over = (top, below) => [0, 1, 2].map((at) => top[at] * top[3] + below[at] * (1 - top[3])).concat(1);
  const light = (colour) => {
    const part = colour.slice(0, 3).map((value) => {
      const c = value / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
  };
  const canvas = () => {
    const scheme = getComputedStyle(document.documentElement).colorScheme;
    const dark = matchMedia("(prefers-color-scheme: dark)").matches && scheme.includes("dark") && !print;
    return dark ? [18, 18, 18, 1] : [255, 255, 255, 1];
  };
  const grounds = new Map();
  const ground = (node) => {
    if (!node) return canvas();
    const style = getComputedStyle(node);
    if (style.backgroundImage !== "none") return null;
    const own = node instanceof HTMLElement ? parse(style.backgroundColor) : [0, 0, 0, 0];
    if (!own) return null;
    if (own[3] === 1) return own;
    const below = behind(node.parentElement);
    return below && over(own, below);
  };
  const behind = (node) => {
    if (!grounds.has(node)) grounds.set(node, ground(node));
    return grounds.get(node);
  };
  // what is drawn where a text of a drawing stands
  const drawn = new Map();
  const filled = (svg) => [...svg.querySelectorAll("circle, rect, path")].map((shape) => ({
    fill: getComputedStyle(shape).fill, box: shape.getBoundingClientRect(),
  })).filter((shape) => shape.fill !== "none");
  const shapes = (node) => {
    if (!(node instanceof SVGElement)) return [];
    const svg = node.ownerSVGElement, box = node.getBoundingClientRect();
    if (!drawn.has(svg)) drawn.set(svg, filled(svg));
    return drawn.get(svg).filter((shape) => shape.box.left < box.right && shape.box.right > box.left &&
      shape.box.top < box.bottom && shape.box.bottom > box.top).map((shape) => shape.fill);
  };
  let texts = 0;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walk.nextNode(); text; text = walk.nextNode()) {
    const node = text.parentElement;
    if (!text.data.trim() || !node.checkVisibility() || node.closest("title, desc, style")) continue;
    texts += 1;
    const style = getComputedStyle(node);
    const fore = parse(node instanceof SVGElement ? style.fill : style.color);
    const below = [behind(node), ...shapes(node).map(parse)];
    const size = parseFloat(style.fontSize);
    const large = size >= LARGE || (size >= LARGE_BOLD && +style.fontWeight >= 700);
    for (const colour of below) {
      if (!fore || !colour) {
        faults.push("contrast: of " + name(node) + " nobody can tell");
        continue;
      }
      const pair = [light(over(fore, colour)), light(colour)].sort((a, b) => b - a);
      const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
      if (ratio < (large ? 3 : 4.5)) faults.push("contrast: " + ratio.toFixed(2) + " of " + name(node));
    }
  }
  if (!texts) faults.push("text: there is none");
  return faults.slice(0, 200);
})()
