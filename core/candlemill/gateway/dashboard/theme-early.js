// Before anything is drawn: what was chosen last time.
try {
  const chosen = localStorage.getItem("candlemill-theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch {
  /* no storage: the system's choice */
}
