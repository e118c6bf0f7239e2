// The search field of the Compare page, and its place in the browser's history.
//
// The field belongs to the person: what is typed goes to Python with a number, and what Python says is searched for is
// set only where Python has seen all that was typed, as after Back or a button that takes the search off.

const fields = new WeakMap()
let searching = false // the step that the browser is at is of a search, which goes on until the field is entered anew

class Field {
  constructor(parent) {
    this.sent = 0
    this.root = parent.appendChild(document.createElement("label"))
    this.root.className = "gs-search"
    this.root.append("Search", (this.input = document.createElement("input")))
    Object.assign(this.input, { type: "search", autocomplete: "off" })
    this.input.addEventListener("input", event => event.isComposing || this.typed())
    this.input.addEventListener("compositionend", () => this.typed())
    this.input.addEventListener("focus", () => (searching = false))
  }

  draw({ text, seen, disabled, placeholder, pause, longest }) {
    this.pause = pause
    Object.assign(this.input, { disabled, placeholder, maxLength: longest })
    if (seen >= this.sent && !this.timer && this.input.value !== text) this.input.value = text
  }

  typed() {
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.send(), this.pause)
  }

  send() {
    this.timer = 0
    this.sent = Math.max(Date.now(), this.sent + 1)
    this.emit({ text: this.input.value, number: this.sent })
  }

  close() {
    clearTimeout(this.timer)
    this.root.remove()
  }
}

// What an address says beside the search's text and the page, which a new text takes out.
function rest(address) {
  const names = new URLSearchParams(address.searchParams)
  for (const name of ["q", "page"]) names.delete(name)
  names.sort()
  return `${address.pathname}?${names}`
}

// Streamlit makes a step of the history of every change of the address, and so of every key. Changes that go on with a
// search replace the step that its first key made.
function step(state, title, address) {
  const here = new URL(location.href)
  const there = new URL(address ?? "", here)
  const typed = here.searchParams.get("q") !== there.searchParams.get("q")
  const turnedBack = searching && !there.searchParams.has("page")
  const taken = !there.searchParams.get("q") && !document.activeElement?.matches(".gs-search input") // off, by a button
  const goesOn = rest(here) === rest(there) && (typed || turnedBack) && !taken
  History.prototype[goesOn && searching ? "replaceState" : "pushState"].call(history, state, title, address)
  searching = goesOn
}

function left() {
  searching = false
}

export default function ({ data, parentElement, setStateValue }) {
  const field = fields.get(parentElement) ?? new Field(parentElement)
  fields.set(parentElement, field)
  field.emit = typed => setStateValue("typed", typed)
  field.draw(data)
  history.pushState = step
  addEventListener("popstate", left)
  return () => {
    if (parentElement.isConnected) return // Streamlit cleans up after a draw too that a newer one has overtaken
    field.close()
    fields.delete(parentElement)
    delete history.pushState
    removeEventListener("popstate", left)
  }
}
