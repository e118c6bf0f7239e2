"""What stands in a record for a picture or a recording."""


class Media:
    """What stands in a record for an image, a recording or a film, which is never read."""

    def __repr__(self) -> str:
        return "<media>"


MEDIA = Media()
