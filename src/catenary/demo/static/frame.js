import { $ } from "./dom.js";

const THEME = "catenary-demo-theme";

/** What surrounds the conversation: the theme, the tabs of a narrow page, and the composer. */
export function setUpFrame({ onQuestion, onThread }) {
  setUpTheme();
  setUpTabs();
  setUpComposer(onQuestion);
  $("threads").addEventListener("change", ({ target }) => onThread(target.value));
  addEventListener("hashchange", () => onThread(threadOfUrl() ?? ""));
}

/** The conversation that the address names, so that a second tab shows the same one. */
export function threadOfUrl() {
  return new URLSearchParams(location.hash.slice(1)).get("thread");
}

export function urlOfThread(threadId) {
  return `#${new URLSearchParams({ thread: threadId })}`;
}

function setUpTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () => {
    $("theme").querySelector("use").setAttribute("href", isDark() ? "#i-sun" : "#i-moon");
    $("theme").ariaLabel = isDark() ? "Switch to the light theme" : "Switch to the dark theme";
  };
  const kept = localStorage.getItem(THEME);
  if (kept) document.documentElement.dataset.theme = kept;
  $("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem(THEME, document.documentElement.dataset.theme);
    show();
  });
  system.addEventListener("change", show);
  show();
}

function setUpTabs() {
  const tabs = [$("tab-talk"), $("tab-wire")];
  const layout = document.querySelector(".layout");
  const select = (tab) => {
    layout.dataset.tab = tab.getAttribute("aria-controls");
    for (const one of tabs) {
      one.ariaSelected = String(one === tab);
      one.tabIndex = one === tab ? 0 : -1;
    }
  };
  for (const tab of tabs) {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", ({ key }) => {
      if (key !== "ArrowLeft" && key !== "ArrowRight") return;
      const other = tabs.find((one) => one !== tab);
      select(other);
      other.focus();
    });
  }
  $("pill").addEventListener("click", () => {
    select($("tab-wire"));
    $("wire").scrollIntoView({ block: "nearest" });
  });
}

function setUpComposer(onQuestion) {
  const field = $("question");
  const fit = () => {
    field.style.height = "auto";
    field.style.height = `${Math.min(field.scrollHeight, 180)}px`;
    $("send").disabled = !field.value.trim();
  };
  const submit = () => {
    const text = field.value.trim();
    if (!text) return;
    field.value = "";
    fit();
    onQuestion(text);
  };
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  field.addEventListener("input", fit);
  fit();
}
