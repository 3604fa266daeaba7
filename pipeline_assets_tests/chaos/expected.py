"""What the undisturbed pass over a story's batch shows: the measure for every disturbed one."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline_assets_tests.chaos import forge
from pipeline_assets_tests.chaos.looking import Seen, contents, differences, through_doors
from pipeline_assets_tests.chaos.story import DONE, PAST, Story


@dataclass(frozen=True)
class Expected:
    """What the doors may show, and the contents of every table at the end."""

    before: Seen  # through the doors, before the batch
    after: Seen  # through the doors, after it
    final: Seen

    @classmethod
    def of(cls, story: Story) -> Expected:
        def seen(moment: str) -> Seen:
            lake = story.lake(moment)
            return forge.told(story.at(moment), lambda: through_doors(lake, story.days), story.root / "seen.json")

        final = forge.told(story.at(DONE), lambda: contents(story.lake(DONE)), story.root / "final.json")
        return cls(seen(PAST), seen(DONE), final)

    def unlike(self, found: Seen) -> list[str]:
        """How contents differ from the undisturbed ones."""
        missing = [f"missing: {key}" for key in sorted(set(self.final) - set(found))]
        return [f"other content than undisturbed: {line}" for line in differences(found, self.final)] + missing
