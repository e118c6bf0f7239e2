// The board of the Compare page: columns of cards, the keys, and what a person decides.
//
// Python sends everything as JSON. The HTML in it was escaped there, text by text; everything else is set as text. A
// decision shows at once and goes to Python with a number; it stays in `pending` until Python confirms that number, so
// that keys pressed faster than the page answers are neither lost nor undone by an older answer.

const boards = new WeakMap()

const ACTIONS = {
  accept: { key: "a", name: "Accept", path: "M3 8.5l3.2 3.2L13 4.8" },
  reject: { key: "x", name: "Reject", path: "M4 4l8 8M12 4l-8 8" },
  note: { key: "n", name: "Note", path: "M3 13l.8-3.2L10.6 3 13 5.4 6.2 12.2z" },
  why: { key: "w", name: "Why", path: "" },
}
const LEGEND = [
  ["J", "next", board => board.move(0, 1)],
  ["K", "previous", board => board.move(0, -1)],
  ["←", "column left", board => board.move(-1, 0)],
  ["→", "column right", board => board.move(1, 0)],
  ["↵", "unfold", board => board.unfold()],
  ["A", "accept", board => board.act("accept")],
  ["X", "reject", board => board.act("reject")],
  ["N", "note", board => board.act("note")],
  ["W", "why", board => board.act("why")],
  ["U", "undo", board => board.undo()],
]
const STATES = { accept: "accepted", reject: "rejected", "": "undecided" }

function make(tag, className, text = "") {
  const element = document.createElement(tag)
  element.className = className
  if (text) element.textContent = text
  return element
}

function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg")
  svg.setAttribute("viewBox", "0 0 16 16")
  svg.setAttribute("aria-hidden", "true")
  svg.appendChild(document.createElementNS(svg.namespaceURI, "path")).setAttribute("d", path)
  return svg
}

// Make `nodes` the children of an element; one that has them already keeps its focus and its scroll position.
function arrange(parent, nodes) {
  const children = parent.children
  if (nodes.length !== children.length || nodes.some((node, at) => node !== children[at])) parent.replaceChildren(...nodes)
}

function typing(target) {
  return target instanceof Element && !!target.closest("input, textarea, select, [contenteditable=true], [role=dialog]")
}

class Board {
  constructor(parent) {
    this.cards = new Map() // key of a card -> its elements and what they show
    this.columns = []
    this.pending = []
    this.last = 0
    this.root = parent.appendChild(make("div", "gs-review"))
    this.root.append(this.legend(), (this.status = make("p", "gs-status")), (this.grid = make("div", "gs-board")))
    this.status.setAttribute("role", "status")
    this.grid.addEventListener("click", event => this.clicked(event))
    this.grid.addEventListener("focusin", event => this.enter(event.target.closest(".gs-card")))
    this.onKey = event => this.pressed(event)
    document.addEventListener("keydown", this.onKey)
  }

  legend() {
    const bar = make("div", "gs-keys")
    bar.setAttribute("role", "toolbar")
    bar.setAttribute("aria-label", "Keys for reviewing")
    for (const [key, name, run] of LEGEND) {
      const button = make("button", "gs-key")
      button.type = "button"
      button.append(make("kbd", "", key), ` ${name}`)
      button.onmousedown = event => event.preventDefault() // keeps the focus on the card
      button.onclick = () => run(this)
      bar.append(button)
    }
    return bar
  }

  draw(data) {
    this.last = Math.max(this.last, data.seen)
    this.pending = this.pending.filter(action => action.number > data.seen)
    const place = this.where(this.current)
    const cards = new Map()
    const columns = data.columns.map((column, at) => this.column(column, this.columns[at], cards))
    const focused = this.current && this.current.contains(document.activeElement)
    arrange(this.grid, columns.map(column => column.root))
    this.columns = columns
    this.cards = cards
    for (const action of this.pending) this.apply(action)
    if (this.current && !this.current.isConnected) {
      this.current = place && this.at(place[0], place[1])
    }
    if (focused && this.current) this.current.focus({ preventScroll: true })
    for (const card of this.cards.values()) this.mark(card)
  }

  column(column, before, cards) {
    const drawn = before?.key === column.key ? before : this.place(column.key)
    drawn.root.setAttribute("aria-label", column.name)
    for (const part of ["head", "foot"]) {
      if (drawn[`${part}Html`] !== column[part]) drawn[part].innerHTML = drawn[`${part}Html`] = column[part]
    }
    drawn.list = column.cards.map(card => this.card(card, cards))
    arrange(drawn.body, [...drawn.list.map(card => card.root), drawn.foot])
    return drawn
  }

  place(key) {
    const drawn = { key, root: make("section", "gs-column"), head: make("div", ""), body: make("div", ""), foot: make("div", "") }
    drawn.root.append(drawn.head, drawn.body)
    return drawn
  }

  card(card, cards) {
    const drawn = this.cards.get(card.key) ?? this.frame(card)
    cards.set(card.key, drawn)
    if (drawn.html !== card.html) drawn.body.innerHTML = drawn.html = card.html
    drawn.name = card.name
    drawn.verdict = card.verdict
    if (drawn.noteText !== card.note) {
      drawn.note.textContent = drawn.noteText = card.note
      drawn.note.hidden = !card.note
    }
    if (drawn.kind !== card.kind) drawn.root.className = drawn.kind = card.kind
    return drawn
  }

  frame(card) {
    const root = make("article", card.kind)
    const drawn = { row: card.row, root, body: make("div", ""), note: make("p", "gs-note"), buttons: {} }
    drawn.note.dir = "auto"
    const acts = make("div", "gs-acts")
    for (const [act, { name, key, path }] of Object.entries(ACTIONS)) {
      const button = make("button", `gs-act gs-act-${act}`)
      button.type = "button"
      button.dataset.act = act
      button.title = `${name} (${key.toUpperCase()})`
      if (path) button.append(icon(path))
      else button.textContent = name
      drawn.buttons[act] = button
      acts.append(button)
    }
    root.append(drawn.body, drawn.note, acts)
    root.dataset.key = card.key
    return drawn
  }

  // Show a card's verdict, and let Tab reach only the current card and its buttons. A card that is up to date is left
  // alone: writing to the page is slow, and each card takes ten writes.
  mark(card) {
    const here = card.root === this.current
    const reached = here || (!this.current && card === this.columns[0]?.list[0])
    const state = [here, reached, card.verdict, card.name].join()
    if (card.state === state) return
    card.state = state
    card.root.dataset.verdict = card.verdict
    card.root.tabIndex = reached ? 0 : -1
    card.root.setAttribute("aria-label", `${card.name}, ${STATES[card.verdict]}`)
    for (const [act, button] of Object.entries(card.buttons)) {
      button.tabIndex = here ? 0 : -1
      button.setAttribute("aria-label", `${ACTIONS[act].name}: ${card.name}`)
      if (act === "accept" || act === "reject") button.setAttribute("aria-pressed", String(card.verdict === act))
    }
  }

  where(root) {
    for (const [x, column] of this.columns.entries()) {
      const y = column.list.findIndex(card => card.root === root)
      if (y >= 0) return [x, y]
    }
    return null
  }

  // The card at a place, or the nearest one in its column; null if the column is empty.
  at(x, y) {
    const list = this.columns[x]?.list ?? []
    return list[Math.min(Math.max(y, 0), list.length - 1)]?.root ?? null
  }

  enter(root) {
    if (!root || root === this.current) return
    const before = this.current
    this.current = root
    for (const one of [before, root]) {
      const card = one && this.cards.get(one.dataset.key)
      if (card) this.mark(card)
    }
  }

  move(across, down) {
    const place = this.where(this.current)
    let next = place && this.at(place[0] + across, place[1] + down)
    for (let x = 0; !place && !next && x < this.columns.length; x++) next = this.at(x, 0)
    if (!next) return
    next.focus({ preventScroll: true })
    next.scrollIntoView({ block: "nearest", inline: "nearest" })
  }

  act(kind, root = this.current) {
    const card = root && this.cards.get(root.dataset.key)
    if (!card) {
      this.move(0, 0) // shows which card the next key decides on
      this.status.textContent = "The first card is now selected; press the key again."
      return
    }
    if (kind === "note") this.awaitNote()
    const verdict = card.verdict === kind ? "" : kind // the same key again clears the verdict
    this.send(kind === "accept" || kind === "reject" ? { kind: "decide", row: card.row, verdict } : { kind, row: card.row })
  }

  unfold() {
    const fold = this.current?.querySelector("details")
    if (fold) fold.open = !fold.open
  }

  // The dialog for a note opens with the answer from Python; put the cursor in its field at once.
  awaitNote() {
    const watch = new MutationObserver(() => {
      const field = document.querySelector("[role=dialog] textarea")
      if (!field) return
      watch.disconnect()
      field.focus()
    })
    watch.observe(document.body, { childList: true, subtree: true })
    setTimeout(() => watch.disconnect(), 10_000)
  }

  undo() {
    this.send({ kind: "undo" })
  }

  send(action) {
    this.last = Math.max(Date.now(), this.last + 1)
    this.pending.push({ ...action, number: this.last })
    this.apply(action)
    this.emit(this.pending)
  }

  apply(action) {
    if (action.kind !== "decide") return
    for (const card of this.cards.values()) {
      if (card.row === action.row) {
        card.verdict = action.verdict
        this.mark(card)
      }
    }
    this.status.textContent = `Row ${action.row.toLocaleString("en")}: ${STATES[action.verdict]}.`
  }

  clicked(event) {
    const button = event.target.closest(".gs-act")
    const root = event.target.closest(".gs-card")
    if (!root) return
    this.enter(root)
    if (button) this.act(button.dataset.act, root)
    else if (!event.target.closest("summary, a, button") && !String(window.getSelection())) {
      root.focus({ preventScroll: true })
    }
  }

  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || typing(event.target)) return
    if (document.querySelector("[role=dialog], [data-testid=stPopoverBody]")) return // something covers the board
    if (event.key.length > 1 && !this.root.contains(event.target)) return // arrows belong to the focused element
    const run = this.command(event.key)
    if (!run) return
    event.preventDefault()
    run()
  }

  command(pressed) {
    const key = pressed.length === 1 ? pressed.toLowerCase() : pressed
    const act = Object.keys(ACTIONS).find(name => ACTIONS[name].key === key)
    if (act) return () => this.act(act)
    if (key === "Enter") return document.activeElement === this.current ? () => this.unfold() : null
    const moves = { j: [0, 1], k: [0, -1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }
    if (moves[key]) return () => this.move(...moves[key])
    return key === "u" ? () => this.undo() : null
  }

  close() {
    document.removeEventListener("keydown", this.onKey)
    this.root.remove()
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const board = boards.get(parentElement) ?? new Board(parentElement)
  boards.set(parentElement, board)
  board.emit = actions => setTriggerValue("acts", actions)
  board.draw(JSON.parse(new TextDecoder().decode(data)))
  return () => {
    if (parentElement.isConnected) return // Streamlit also cleans up draws that a newer one has overtaken
    board.close()
    boards.delete(parentElement)
  }
}
