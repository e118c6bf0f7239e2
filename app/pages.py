"""The pages, in the order of the work. A new page is one line here and one script in `pages/`."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Room:
    """A page: its script's stem (also its address), its title, icon and the help text of its link."""

    stem: str
    title: str
    icon: str
    help: str

    @property
    def path(self) -> Path:
        """The page's script."""
        return ROOT / "pages" / f"{self.stem}.py"


ROOMS = (
    Room("datastore", "Datastore", ":material/database:", "Open a gradient datastore, or build one from your pool."),
    Room("targets", "Targets", ":material/target:", "The examples of what the model should learn."),
    Room("compare", "Compare", ":material/view_column:", "The picks of every method, side by side, at one budget."),
    Room("why", "Why", ":material/search_insights:", "One row in full: what speaks for and against it."),
    Room("distributions", "Distributions", ":material/bar_chart:", "What the picks are made of and how sure they are."),
    Room("norms", "Gradient norms", ":material/scatter_plot:", "Norms against answer length, with the picks on top."),
    Room("export", "Export", ":material/download:", "The picks of one method as files for a trainer."),
    Room("proof", "Proof", ":material/science:", "Train on each method's picks: does it help here?"),
    Room("sessions", "Sessions", ":material/bookmark:", "Saved sessions: reopen, rename, compare their picks."),
)


def room(stem: str) -> Path:
    """The script of the page `stem`, for links to it."""
    return next(r.path for r in ROOMS if r.stem == stem)
