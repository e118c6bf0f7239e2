// A search is one step of the browser's Back. Streamlit makes a step of every change of the address, and so of every key:
// here the changes that go on with a search replace the step that its first key made.

const FIELD = ".st-key-q input"
let searching = false // the step that the browser is at is of a search, which goes on until the field is entered anew

// What an address says beside the search's text and the page, which a new text takes out.
function rest(address) {
  const names = new URLSearchParams(address.searchParams)
  for (const name of ["q", "page"]) names.delete(name)
  names.sort()
  return `${address.pathname}?${names}`
}

function step(state, title, address) {
  const here = new URL(location.href)
  const there = new URL(address ?? "", here)
  const typed = here.searchParams.get("q") !== there.searchParams.get("q")
  const turnedBack = searching && !there.searchParams.has("page")
  const taken = !there.searchParams.get("q") && !document.activeElement?.matches(FIELD) // off, by a button
  const goesOn = rest(here) === rest(there) && (typed || turnedBack) && !taken
  History.prototype[goesOn && searching ? "replaceState" : "pushState"].call(history, state, title, address)
  searching = goesOn
}

function stop() {
  searching = false
}

function entered(event) {
  if (event.target.matches(FIELD)) stop()
}

export default function () {
  history.pushState = step
  addEventListener("popstate", stop)
  document.addEventListener("focusin", entered)
  return () => {
    delete history.pushState
    removeEventListener("popstate", stop)
    document.removeEventListener("focusin", entered)
  }
}
