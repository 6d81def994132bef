const SVG = "http://www.w3.org/2000/svg";
const HUNG = "M26 16Q200 84 374 16";
const CUT = "M26 16Q40 66 96 70M374 16Q360 66 304 70";
const TRAVEL = 700;
const MOST_DOTS = 28;

/**
 * The wire between the log and this page, with a dot for each event that comes.
 *
 * It hangs in one piece while there is a connection. Without one it hangs in two, and nothing travels.
 */
export class Line {
  #dots = new Set();
  #stillness = matchMedia("(prefers-reduced-motion: reduce)");
  #frame = null;

  constructor(svg) {
    this.cable = svg.querySelector(".cable");
    this.group = svg.querySelector(".dots");
  }

  show(isConnected) {
    this.cable.setAttribute("d", isConnected ? HUNG : CUT);
    if (!isConnected) for (const dot of this.#dots) this.#remove(dot);
  }

  /** An event came; `family` colours its dot. */
  pulse(family) {
    if (this.#stillness.matches || document.hidden || this.#dots.size >= MOST_DOTS) return;
    const circle = document.createElementNS(SVG, "circle");
    circle.setAttribute("r", "3.6");
    circle.dataset.family = family;
    this.group.append(circle);
    this.#dots.add({ circle, from: performance.now() });
    this.#frame ??= requestAnimationFrame((now) => this.#move(now));
  }

  #move(now) {
    for (const dot of this.#dots) {
      const t = Math.max(0, (now - dot.from) / TRAVEL);
      if (t >= 1) this.#remove(dot);
      else place(dot.circle, t);
    }
    this.#frame = this.#dots.size ? requestAnimationFrame((next) => this.#move(next)) : null;
  }

  #remove(dot) {
    dot.circle.remove();
    this.#dots.delete(dot);
  }
}

/** The quadratic curve of the hung cable, at t from 0 to 1. */
function place(circle, t) {
  const u = 1 - t;
  circle.setAttribute("cx", String(u * u * 26 + 2 * u * t * 200 + t * t * 374));
  circle.setAttribute("cy", String(u * u * 16 + 2 * u * t * 84 + t * t * 16));
}
